"""Records of scores, and of what training must not cost: the student's speed and earlier right answers."""

from parityalign.core.records import Record


class Ratio(Record):
    """A ratio with its confidence interval."""

    value: float
    ci: tuple[float, float] | None
    """95 %, from a bootstrap over the parts of the questions; None where there is only one."""


class Usage(Record):
    """Speed, memory and length of answers of one student, on the questions that both were asked."""

    parameters: int
    """Number of parameters."""
    answers_per_second: float
    first_token_seconds: float
    """Median over the trials, each of a single question."""
    peak_bytes: int | None
    """Peak memory while it answers the questions of a trial; None if the machine does not report it."""
    words: float
    """Mean words in an answer."""


class Speed(Record):
    """The student before and after levelling, timed in one process, alternating, on the same questions."""

    questions: int
    """Questions asked of each student."""
    trials: int
    """Trials of each student; in a trial it answers one part of the questions."""
    not_measured: str | None = None
    """Why nothing was measured: a reason code."""
    together: bool = True
    """Whether both students fit into memory and alternated part by part; else each was loaded twice."""
    before: Usage | None = None
    after: Usage | None = None
    ratio: Ratio | None = None
    """Answers per second, after over before."""


class Regressions(Record):
    """What the student had right before and has wrong after."""

    had_right: int
    """Before; the other counts are among these."""
    images: int
    lost: int
    share: float | None
    """Between 0 and 1; None if it had nothing right."""
    ci: tuple[float, float] | None
    """95 %, Wilson's score interval for the effective number of independent cases, with images as clusters."""


class RegressionsByTask(Record):
    """The same task by task."""

    tasks: dict[str, Regressions]
    total: Regressions


class Forgotten(Record):
    """What levelling made the student forget."""

    questions: RegressionsByTask
    """Test questions that scored at least 0.5 before and less after."""
    pairs: RegressionsByTask | None = None
    """Pairs that it had right in identify and was not trained on, judged as in identify. None: not asked."""


class Estimate(Record):
    """A score from 0 to 100 with its interval."""

    score: float
    ci: tuple[float, float] | None = None
    """95 %, from a bootstrap over images."""


class Gain(Estimate):
    """After minus before, in points."""

    p: float | None = None
    """Two-sided, from a paired permutation test over images."""


class HeldOutPair(Record):
    """How the levelled student did on a pair of an image that was held out of the pool."""

    pair_id: str
    image_id: str
    task: str
    right_before: bool
    right_after: bool
    text: str
    """What it answers now, greedily."""


class Share(Record):
    """A share of some cases."""

    count: int
    of: int
    share: float | None
    """Between 0 and 1; None where there are no cases."""
    ci: tuple[float, float] | None
    """95 %, as in `Regressions`."""


class Agreement(Record):
    """How far the student agrees with the teacher's pairs on held-out images."""

    pairs: int
    images: int
    before: Share
    """Pairs that it has right."""
    after: Share
    difference: Estimate
    """After minus before, in points, with a bootstrap interval over images."""
    p: float
    """Two-sided, from a paired permutation test over images."""
    gaps_closed: Share
    """Of the pairs that it had wrong: those that it has right after."""
    lost: Share
    """Of the pairs that it had right: those that it has wrong after."""


class HeldOut(Record):
    """What the images that were held out of the pool say of levelling; needs no labels."""

    accepted: bool
    """Whether the levelled student was better, and taken."""
    total: Agreement
    tasks: dict[str, Agreement]


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
    """Scores by the paper's substring rule, which is far more lenient than any official metric."""

    before: float
    after: float
    teacher: float


class Coverage(Record):
    """How many questions of a test split's file were scored."""

    questions: int
    """Questions in the file."""
    scored: int
    not_scored: dict[str, int] = {}
    """How many are not scored, by reason code."""


class TaskScores(Comparison):
    """The results of one task."""

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
    """Unweighted mean over the tasks; None if no task was scored."""
    gap_recovered: float | None = None
    """Mean gain over the mean difference from student to teacher; None if the teacher is not ahead."""
    not_scored: list[str] = []
    """Tasks without a test split."""
    forgotten: Forgotten
    held_out: HeldOut | None = None
    """None if nothing was trained, or no image could be held out."""
    speed: Speed | None = None
    """None if it was not measured."""

    @property
    def questions(self) -> int:
        """Questions scored, over all tasks."""
        return sum(task.n for task in self.tasks.values())


class Control(Record):
    """A student trained on something other than this run's gaps and replay."""

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
    """Mean score of the run's own student minus this one's, paired by question."""
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
