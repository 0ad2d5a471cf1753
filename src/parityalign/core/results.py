"""What levelling must not take from the student: its speed, and what it had right. The records that say so."""

from parityalign.core.records import Record


class Ratio(Record):
    """How many times as much, and how sure that is."""

    value: float
    ci: tuple[float, float] | None
    """95 %, from a bootstrap over the parts of the questions; None where there is only one."""


class Usage(Record):
    """What one student takes, on the questions that both were asked."""

    parameters: int
    """Numbers in its weights."""
    answers_per_second: float
    first_token_seconds: float
    """Median over the turns: one question alone, until its first token is there."""
    peak_bytes: int | None
    """Memory that it takes at most while it answers a turn's questions; None where the machine does not say."""
    words: float
    """Of an answer, on average."""


class Speed(Record):
    """The student after levelling beside the student before, in one process, in turns, on the same questions."""

    questions: int
    """Asked of each."""
    turns: int
    """Of each student; in a turn it answers a part of the questions, and then the other one does."""
    not_measured: str | None = None
    """Why there are no numbers: a reason code."""
    together: bool = True
    """Whether both were in memory, so that they took turns part by part; else each was loaded twice."""
    before: Usage | None = None
    after: Usage | None = None
    ratio: Ratio | None = None
    """Of answers a second, after over before."""


class Lost(Record):
    """What the student had right before and has wrong after."""

    had_right: int
    """Before; everything here is counted among these."""
    images: int
    lost: int
    share: float | None
    """Between 0 and 1; None where it had nothing right."""
    ci: tuple[float, float] | None
    """95 %, by Wilson's score for as many independent cases as the images allow."""


class LostByTask(Record):
    """The same task by task."""

    tasks: dict[str, Lost]
    total: Lost


class Forgotten(Record):
    """What levelling made the student forget."""

    questions: LostByTask
    """Of the test splits: those that it had right to at least a half before, and after no longer."""
    pairs: LostByTask | None = None
    """Of the pairs that it had right in identify and was not trained on, judged as there. None: nobody asked."""
