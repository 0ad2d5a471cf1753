"""The records that stages exchange: frozen, validated when built, one JSON line each."""

import hashlib
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


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
    """Where it was read from, such as a shard and a row, if it was not its own file."""
    notes: tuple[str, ...] = ()
    """What else intake noted: `first_frame` (of several), `other_format` (than the file's name says)."""
    pixels: str = ""
    """SHA-256 (first 32 hex digits) of size and pixels, upright, in RGB."""
    likeness: str = ""
    """Perceptual hash and grey values in hex digits, for finding near duplicates."""
    of_pairs: bool = False
    """Whether only a file of pairs names it, so that the teacher writes none about it."""


class Rejected(Record):
    """An image that intake set aside."""

    path: str
    task: str
    reason: str
    """A reason code such as `truncated` or `not_an_image`."""
    detail: str = ""
    """What the decoder said."""
    partner: str = ""
    """The image that it duplicates, if that is the reason."""


class Reply(Record):
    """The teacher's reply when asked for a pair on one image, and what was read from it."""

    reply_id: str
    """`content_id(image_id, task, teacher, draw number)`."""
    image_id: str
    task: str
    raw: str
    """The raw text of the reply."""
    outcome: str
    """`ok`, or the reason why there is no pair: see `stages/parsing.py`."""
    pair_id: str | None = None
    """The pair read from it; None if it repeats an earlier pair (outcome `duplicate`) or holds no pair."""
    kind: str = ""
    """The kind of question that was asked for; empty where the task has none."""
    logprob: float | None = None
    """As of an `Answer`."""


class Pair(Record):
    """A question and answer about one image: the teacher's, or one's own."""

    pair_id: str
    """`content_id(image_id, task, question, answer, teacher)`, with the answer as it was written."""
    image_id: str
    image: str
    """Path of the image file."""
    task: str
    question: str
    answer: str
    teacher: str
    """Who wrote it: the model's name, or `given:` and the name of the file that it came in with."""
    written: str | None = None
    """The answer as it was written, where a person has corrected it; else None."""

    @property
    def identity(self) -> str:
        """What it is to those that learn from it: its id, and a person's answer if it has one."""
        return self.pair_id if self.written is None else content_id(self.pair_id, self.answer)


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
    exact: tuple[bool, ...] = ()
    """Which items of the answer have to be met exactly, such as years, for metrics that ask; empty: none."""

    @model_serializer(mode="wrap")
    def _as_before(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `exact` where it is empty: questions that were kept before there was one keep their digests."""
        row: dict[str, Any] = written(self)
        if not self.exact:
            row.pop("exact", None)
        return row


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
    """Why there is no answer, such as `special_token`; None if there is one."""
    cut_off: bool = False
    """Whether the answer ended at its token limit, as far as the model tells."""
    logprob: float | None = None
    """Its natural log-probability to the model, summed over its tokens, to three digits; None: unknown."""


class Rationale(Record):
    """The teacher's rationale for a pair's answer."""

    pair_id: str
    text: str | None
    """None if the teacher gave none that leads to the pair's answer."""
    why_not: str | None = None
    """Why it is missing: a reason code."""


class VerdictKind(StrEnum):
    """The verdict of identify on a pair; `teacher_only` is a gap, and `unsure` neither a gap nor replayed."""

    TEACHER_ONLY = "teacher_only"
    NEITHER = "neither"
    STUDENT_RIGHT = "student_right"
    BOTH = "both"
    STUDENT_ONLY = "student_only"
    UNSURE = "unsure"
    """Words alone do not tell whether one of the models is right; the reason says which."""
    DROPPED = "dropped"


class Verdict(Record):
    """One line a pair: both answers, their scores, the verdict and its reason."""

    pair_id: str
    verdict: VerdictKind
    reason: str
    """The reason: a short sentence or a reason code."""
    student_text: str | None = None
    teacher_text: str | None = None
    """None if the teacher was not asked."""
    student_score: float | None = None
    teacher_score: float | None = None


class Judged(NamedTuple):
    """A pair and its verdict."""

    pair: Pair
    verdict: Verdict


class Score(NamedTuple):
    """A metric's score of one prediction. A tuple for speed, since there are hundreds of thousands."""

    value: float
    """Between 0 and 1."""
    compared: str
    """The prediction as it was compared, after normalisation."""
    why: str
    """A short explanation, for example `4 of 10 references match`."""


class Measure(StrEnum):
    """The measures that compare the two models; names of fields of `PairDiscrepancy`."""

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
    """Number of tokens in the mean; 0 if there is none."""
    student_tokens: int
    confidence_gap: float | None
    """The teacher's mean log-probability minus the student's: above 0 the student finds the answer less likely."""
    attention_divergence: float | None
    """Jensen-Shannon divergence of the two attention maps, in nats: 0 for equal maps, ln 2 for disjoint ones."""
    rationale_gap: float | None
    """The same for the teacher's rationale: above 0 the student finds it less likely."""
    missing: dict[str, str] = {}
    """Why a measure is missing: reason codes by measure."""

    @property
    def student_wrong(self) -> bool | None:
        """Whether the student has the pair wrong; None if unknown."""
        return None if self.student_right is None else not self.student_right
