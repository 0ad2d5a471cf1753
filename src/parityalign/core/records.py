"""The few nouns that travel between stages: frozen, checked when built, one JSON line each."""

import hashlib
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict


def content_id(*parts: str) -> str:
    """A 32-digit hex identity of a sequence of texts; no two sequences share one by concatenation."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()[:32]


class Record(BaseModel):
    """A frozen row; unknown keys in a file are ignored so that newer files stay readable."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ImageRef(Record):
    """An image that passed intake."""

    image_id: str
    """SHA-256 (first 32 hex digits) of the file's bytes."""
    path: str
    """Where the file lies."""
    task: str
    """The task whose pool it came in with."""
    origin: str = ""
    """The place that it was taken from, such as a shard and a row, where it was no file of its own."""
    notes: tuple[str, ...] = ()
    """What else intake saw: `first_frame` (only it is used, of several), `other_format` (than the file's name says)."""
    pixels: str = ""
    """SHA-256 (first 32 hex digits) of size and pixels, upright and in RGB."""
    likeness: str = ""
    """Perceptual hash and grey values in hex digits, which propose near duplicates."""


class Rejected(Record):
    """An image that intake set aside."""

    path: str
    task: str
    reason: str
    """A reason code such as `truncated` or `not_an_image`."""
    detail: str = ""
    """What the decoder said."""
    partner: str = ""
    """The image that it equals, where that is the reason."""


class Reply(Record):
    """What the teacher wrote for one image when asked for a pair, and what became of it."""

    reply_id: str
    """`content_id(image_id, task, teacher, draw number)`."""
    image_id: str
    task: str
    raw: str
    """The text as it came, never edited."""
    outcome: str
    """`ok`, or the reason why there is no pair: see `parsing.py`."""
    pair_id: str | None = None
    """The pair that was read from it; a repeat of an earlier pair has none and the outcome `duplicate`."""
    kind: str = ""
    """The kind of question that was asked for; empty where the task has none."""


class Pair(Record):
    """A pseudo question and answer that the teacher wrote for one image."""

    pair_id: str
    """`content_id(image_id, task, question, answer, teacher)`."""
    image_id: str
    image: str
    """Path of the image file."""
    task: str
    question: str
    answer: str
    teacher: str


class Question(Record):
    """A labelled question of a test split."""

    question_id: str
    image: str
    """Path of the image file."""
    question: str
    answers: tuple[str, ...]
    """The references, as many as the benchmark has."""
    subset: str = ""
    """A part that is reported on its own, such as ChartQA's `human` and `augmented`."""


class LeftOut(Record):
    """A question of a test split that is not scored."""

    question_id: str
    reason: str
    """A reason code such as `missing_image`."""
    detail: str = ""


class Answer(Record):
    """One model's answer to a pair's or a test split's question."""

    item_id: str
    """The `pair_id`, or task and `question_id`."""
    text: str
    not_asked: str | None = None
    """Why the model was not asked, such as `special_token`; None where it was."""


class Rationale(Record):
    """The teacher's rationale of a pair's answer: how it gets there."""

    pair_id: str
    text: str | None
    """None where there is none that leads to the pair's answer."""
    why_not: str | None = None
    """Why there is none: a reason code."""


class VerdictKind(StrEnum):
    """What identify says of a pair; `teacher_only` is a gap."""

    TEACHER_ONLY = "teacher_only"
    NEITHER = "neither"
    STUDENT_RIGHT = "student_right"
    BOTH = "both"
    STUDENT_ONLY = "student_only"
    DROPPED = "dropped"


class Verdict(Record):
    """One line a pair: both answers, their scores, the verdict and its reason."""

    pair_id: str
    verdict: VerdictKind
    reason: str
    """Why: a short sentence or a reason code."""
    student_text: str | None = None
    teacher_text: str | None = None
    """None where the teacher was not asked."""
    student_score: float | None = None
    teacher_score: float | None = None


class Judged(NamedTuple):
    """A pair and what identify says of it."""

    pair: Pair
    verdict: Verdict


class Score(NamedTuple):
    """What a metric says of one prediction. A tuple, since metrics make them by the hundred thousand."""

    value: float
    """Between 0 and 1."""
    compared: str
    """The prediction as it was compared, after normalisation."""
    why: str
    """A short explanation, for example `4 of 10 references match`."""


class Measure(StrEnum):
    """What the two models are compared by; the names of fields of `PairDiscrepancy`."""

    CONFIDENCE_GAP = "confidence_gap"
    ATTENTION_DIVERGENCE = "attention_divergence"
    RATIONALE_GAP = "rationale_gap"


class PairDiscrepancy(Record):
    """How the two models differ on a pair: in confidence, in attention, on the rationale."""

    pair_id: str
    image_id: str
    task: str
    verdict: VerdictKind
    teacher_right: bool | None
    """None: the model was not asked, or could not be judged."""
    student_right: bool | None
    teacher_logprob: float | None
    """Mean log-probability of the pair's answer over the model's own tokens, its end token included, in nats."""
    student_logprob: float | None
    teacher_tokens: int
    """Tokens that the mean is over; 0 where there is none."""
    student_tokens: int
    confidence_gap: float | None
    """The teacher's mean log-probability minus the student's: above 0 the student holds the answer less likely."""
    attention_divergence: float | None
    """Jensen-Shannon divergence of the two maps, in nats: 0 for the same map, ln 2 where nothing is in common."""
    rationale_gap: float | None
    """The same of the teacher's rationale: above 0 the student holds it less likely."""
    missing: dict[str, str] = {}
    """Why a measure is missing: reason codes by measure."""

    @property
    def student_wrong(self) -> bool | None:
        """Whether the student has the pair wrong; None where nobody knows."""
        return None if self.student_right is None else not self.student_right
