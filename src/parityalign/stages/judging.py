"""Judges answers to pseudo questions: which model is right, and the pair's verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from parityalign.config import IdentifySettings
from parityalign.core import Score, Task, Verdict, VerdictKind
from parityalign.metrics import paper_contains
from parityalign.stages.parsing import normalise_answer

EMPTY_ANSWER = "empty_answer"
EMPTY_QUESTION = "empty_question"
NO_STUDENT_ANSWER = "no_student_answer"
NO_TEACHER_ANSWER = "no_teacher_answer"


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

    score: Callable[[str, str], Score]
    """(model's text, the pair's answer) -> score of the text."""
    threshold: float
    """Score from which a text counts as right."""
    ask_all: bool
    """Whether the teacher's answer counts even if the student is right."""

    def agrees(self, text: str, answer: str) -> bool:
        """Whether a model's text counts as right for the pair's answer."""
        return self.score(text, answer).value >= self.threshold

    def verdict(self, pair_id: str, answer: str, student: Given, teacher: Given) -> Verdict:
        """The verdict on one pair; every pair gets one, with its reason."""
        if not normalise_answer(answer):
            return dropped(pair_id, EMPTY_ANSWER, student, teacher)
        if student.text is None:
            return dropped(pair_id, student.missing, student, teacher)
        of_student = self.score(student.text, answer)
        if of_student.value >= self.threshold and not self.ask_all:
            return Verdict(
                pair_id=pair_id,
                verdict=VerdictKind.STUDENT_RIGHT,
                reason=_said("student", of_student),
                student_text=student.text,
                student_score=of_student.value,
            )
        if teacher.text is None:
            return dropped(pair_id, teacher.missing, student, teacher)
        of_teacher = self.score(teacher.text, answer)
        return Verdict(
            pair_id=pair_id,
            verdict=self._cell(of_student, of_teacher),
            reason=f"{_said('student', of_student)}; {_said('teacher', of_teacher)}",
            student_text=student.text,
            teacher_text=teacher.text,
            student_score=of_student.value,
            teacher_score=of_teacher.value,
        )

    def _cell(self, student: Score, teacher: Score) -> VerdictKind:
        cells = {
            (True, True): VerdictKind.BOTH,
            (True, False): VerdictKind.STUDENT_ONLY,
            (False, True): VerdictKind.TEACHER_ONLY,
            (False, False): VerdictKind.NEITHER,
        }
        return cells[student.value >= self.threshold, teacher.value >= self.threshold]


def judge_of(task: Task, settings: IdentifySettings) -> Judge:
    """The judge of a task with these settings."""

    def by_metric(text: str, answer: str) -> Score:
        return task.metric.on_pair(normalise_answer(text), normalise_answer(answer))

    score = _by_paper if settings.rule == "paper" else by_metric
    return Judge(score, settings.threshold, settings.ask_teacher == "all")


def _by_paper(text: str, answer: str) -> Score:
    found = paper_contains(answer, text)
    return Score(float(found), text, "contained" if found else "not contained")


def dropped(pair_id: str, reason: str, student: Given, teacher: Given) -> Verdict:
    """The verdict on a pair that cannot be judged."""
    return Verdict(
        pair_id=pair_id,
        verdict=VerdictKind.DROPPED,
        reason=reason,
        student_text=student.text,
        teacher_text=teacher.text,
    )


def _said(who: str, score: Score) -> str:
    return f"{who} {score.compared[:60]!r} scores {score.value:.2f}"
