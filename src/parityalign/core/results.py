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


class Estimate(Record):
    """A score on a scale of 0 to 100 and how sure it is."""

    score: float
    ci: tuple[float, float] | None = None
    """95 %, from a bootstrap over images."""


class Gain(Estimate):
    """After minus before, in points."""

    p: float | None = None
    """Two-sided, from a paired permutation test over images."""


class Comparison(Record):
    """The three models on one set of questions."""

    n: int
    """Questions scored."""
    images: int
    before: Estimate
    after: Estimate
    teacher: Estimate
    gain: Gain


class PaperMetric(Record):
    """Scores by the paper's substring rule, which is far laxer than any official metric."""

    before: float
    after: float
    teacher: float


class Coverage(Record):
    """What became of the questions of a test split's file."""

    questions: int
    """In the file."""
    scored: int
    not_scored: dict[str, int] = {}
    """How many are not, by reason code."""


class TaskScores(Comparison):
    """What is known of one task."""

    metric: str
    paper_metric: PaperMetric
    improved: int = 0
    """Questions on which the student scores higher after than before."""
    worsened: int = 0
    subsets: dict[str, Comparison] = {}
    """The benchmark's parts, such as ChartQA's `human` and `augmented`."""
    coverage: Coverage


class Scores(Record):
    """The content of `scores.json`."""

    tasks: dict[str, TaskScores]
    mean_gain: Estimate | None = None
    """Unweighted mean over the tasks; None where no task was scored."""
    gap_recovered: float | None = None
    """Mean gain over the mean distance from student to teacher; None where the teacher is not ahead."""
    not_scored: list[str] = []
    """Tasks without a test split."""
    forgotten: Forgotten
    speed: Speed | None = None
    """None where nobody has looked."""

    @property
    def questions(self) -> int:
        """Questions scored, over all tasks."""
        return sum(task.n for task in self.tasks.values())


class Control(Record):
    """The student trained on something else than this run's gaps and replay."""

    name: str
    description: str = ""
    pairs: int | None = None
    """Pairs trained on."""
    steps: int | None = None
    """Optimiser steps."""
    tasks: dict[str, Estimate] = {}
    """Score of the student after, by task."""
    mean: Estimate | None = None
    mean_gain: Estimate | None = None
    run_ahead: Estimate | None = None
    """How much the run's own student scores above this one on average, question by question."""
    forgotten: Regressions | None = None
    """Of the test questions."""


class GapPrecision(Record):
    """How many gaps carry an answer that is true of the drawn picture."""

    n: int
    right: int


class Controls(Record):
    """The content of `controls.json`: `{"controls": [...], "gap_precision": {...}}`."""

    controls: tuple[Control, ...]
    gap_precision: GapPrecision | None = None
