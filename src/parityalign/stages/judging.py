"""Judges answers to pseudo questions: which model is right, and the pair's verdict.

By default answers are compared as a reader would (`_comparing.py`), and what words alone cannot tell is neither right
nor wrong: such a pair is unsure. The task's metric and the paper's rule know right and wrong only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from parityalign.config import IdentifySettings
from parityalign.core import Score, Task, Verdict, VerdictKind
from parityalign.metrics import paper_contains
from parityalign.stages._comparing import LONGEST, compare_answers
from parityalign.stages._outcomes import Outcome
from parityalign.stages.parsing import normalise_answer

EMPTY_ANSWER = "empty_answer"
EMPTY_QUESTION = "empty_question"
NO_STUDENT_ANSWER = "no_student_answer"
NO_TEACHER_ANSWER = "no_teacher_answer"

_VALUES = {Outcome.RIGHT: 1.0, Outcome.UNSURE: 0.5, Outcome.WRONG: 0.0}


class Given(NamedTuple):
    """One model's answer to a pair's question."""

    text: str | None
    """None: there is no answer."""
    missing: str
    """Reason code if there is none."""


NOT_ASKED = Given(None, "")
"""The answer of a model that was not asked about a pair."""


@dataclass(frozen=True)
class Judge:
    """Decides the verdicts on one task's pairs."""

    score: Callable[[str, str, str], Score]
    """(model's text, the pair's answer, its question) -> score of the text."""
    threshold: float
    """Score from which a text counts as right."""
    unsure_from: float
    """Score from which a text does not count as wrong; the threshold where there is nothing in between."""
    ask_all: bool
    """Whether the teacher's answer counts even if the student is right."""

    def outcome(self, text: str, answer: str, question: str = "") -> Outcome:
        """What a model's text comes to for the pair's answer."""
        return self._outcome(self.score(text, answer, question))

    def verdict(self, pair_id: str, answer: str, student: Given, teacher: Given, question: str = "") -> Verdict:
        """The verdict on one pair; every pair gets one, with its reason."""
        if not normalise_answer(answer):
            return dropped(pair_id, EMPTY_ANSWER, student, teacher)
        if student.text is None:
            return dropped(pair_id, student.missing, student, teacher)
        of_student = self.score(student.text, answer, question)
        alone = {Outcome.RIGHT: VerdictKind.STUDENT_RIGHT, Outcome.UNSURE: VerdictKind.UNSURE}
        if not self.ask_all and (kind := alone.get(self._outcome(of_student))):
            return Verdict(
                pair_id=pair_id,
                verdict=kind,
                reason=self._said("student", of_student),
                student_text=student.text,
                student_score=of_student.value,
            )
        if teacher.text is None:
            return dropped(pair_id, teacher.missing, student, teacher)
        of_teacher = self.score(teacher.text, answer, question)
        return Verdict(
            pair_id=pair_id,
            verdict=_cell(self._outcome(of_student), self._outcome(of_teacher)),
            reason=f"{self._said('student', of_student)}; {self._said('teacher', of_teacher)}",
            student_text=student.text,
            teacher_text=teacher.text,
            student_score=of_student.value,
            teacher_score=of_teacher.value,
        )

    def _outcome(self, score: Score) -> Outcome:
        if score.value >= self.threshold:
            return Outcome.RIGHT
        return Outcome.UNSURE if score.value >= self.unsure_from else Outcome.WRONG

    def _said(self, who: str, score: Score) -> str:
        if self.unsure_from == self.threshold:
            return f"{who} {score.compared[:60]!r} scores {score.value:.2f}"
        return f"{who} {score.compared[:60]!r} is {self._outcome(score)} ({score.why})"


def judge_of(task: Task, settings: IdentifySettings) -> Judge:
    """The judge of a task with these settings."""

    def by_metric(text: str, answer: str, question: str) -> Score:
        return task.metric.on_pair(normalise_answer(text), normalise_answer(answer))

    ask_all = settings.ask_teacher == "all"
    if settings.rule == "judge":
        return Judge(_by_words, _VALUES[Outcome.RIGHT], _VALUES[Outcome.UNSURE], ask_all)
    score = _by_paper if settings.rule == "paper" else by_metric
    return Judge(score, settings.threshold, settings.threshold, ask_all)


def _by_words(text: str, answer: str, question: str) -> Score:
    found = compare_answers(text, answer, question)
    return Score(_VALUES[found.outcome], " ".join(text[:LONGEST].split()), found.why)


def _by_paper(text: str, answer: str, question: str) -> Score:
    found = paper_contains(answer, text)
    return Score(float(found), text, "contained" if found else "not contained")


def _cell(student: Outcome, teacher: Outcome) -> VerdictKind:
    if Outcome.UNSURE in (student, teacher):
        return VerdictKind.UNSURE
    cells = {
        (True, True): VerdictKind.BOTH,
        (True, False): VerdictKind.STUDENT_ONLY,
        (False, True): VerdictKind.TEACHER_ONLY,
        (False, False): VerdictKind.NEITHER,
    }
    return cells[student is Outcome.RIGHT, teacher is Outcome.RIGHT]


def dropped(pair_id: str, reason: str, student: Given, teacher: Given) -> Verdict:
    """The verdict on a pair that cannot be judged."""
    return Verdict(
        pair_id=pair_id,
        verdict=VerdictKind.DROPPED,
        reason=reason,
        student_text=student.text,
        teacher_text=teacher.text,
    )
