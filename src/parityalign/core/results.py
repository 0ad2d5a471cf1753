"""Records of what training must not cost the student: its speed, and the answers that it had right."""

from parityalign.core.records import Record


class Ratio(Record):
    """A ratio with its confidence interval."""

    value: float
    ci: tuple[float, float] | None
    """95 %, from a bootstrap over the parts of the questions; None where there is only one."""


class Usage(Record):
    """Speed, memory and length of answers of one student, on the questions that both were asked."""

    parameters: int
    """Numbers in its weights."""
    answers_per_second: float
    first_token_seconds: float
    """Median over the trials, each of one question alone."""
    peak_bytes: int | None
    """Peak memory while it answers the questions of a trial; None where the machine does not say."""
    words: float
    """Of an answer, on average."""


class Speed(Record):
    """The student after levelling timed against the one before: in one process, alternating, on the same questions."""

    questions: int
    """Asked of each."""
    trials: int
    """Of each student; in a trial it answers one part of the questions."""
    not_measured: str | None = None
    """Why there are no numbers: a reason code."""
    together: bool = True
    """Whether both were in memory, so that they alternated part by part; else each was loaded twice."""
    before: Usage | None = None
    after: Usage | None = None
    ratio: Ratio | None = None
    """Of answers a second, after over before."""


class Regressions(Record):
    """What the student had right before and has wrong after."""

    had_right: int
    """Before; the other counts are among these."""
    images: int
    lost: int
    share: float | None
    """Between 0 and 1; None where it had nothing right."""
    ci: tuple[float, float] | None
    """95 %, by Wilson's score for as many independent cases as the images allow."""


class RegressionsByTask(Record):
    """The same task by task."""

    tasks: dict[str, Regressions]
    total: Regressions


class Forgotten(Record):
    """What levelling made the student forget."""

    questions: RegressionsByTask
    """Of the test splits: those that it had right to at least a half before, and after no longer."""
    pairs: RegressionsByTask | None = None
    """Of the pairs that it had right in identify and was not trained on, judged as there. None: nobody asked."""
