"""Reads a run folder as it lies, finished or not, into an index; what cannot be read is told, and the rest is shown."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TypeVar

from parityalign.config import RunConfig
from parityalign.core import (
    DISCREPANCY_FOLDER,
    PAIR_DISCREPANCIES,
    RATIONALES,
    SCORES,
    STUDENT,
    STUDENT_FOLDER,
    TEACHER,
    TESTS,
    Answer,
    HeldOutPair,
    Metric,
    ObservationRef,
    Pair,
    PairDiscrepancy,
    Question,
    Rationale,
    Record,
    Reply,
    Score,
    Scores,
    UserError,
    Verdict,
    VerdictKind,
    stale_inputs,
)
from parityalign.data import questions_in
from parityalign.metrics import find_metric
from parityalign.report import read_record, read_records
from parityalign.stages import (
    AFTER_FILE,
    BEFORE_FILE,
    HELD_OUT,
    REPLIES,
    STUDENT_ANSWERS,
    TEACHER_ANSWERS,
    TEACHER_FILE,
    VERDICTS,
    judge_answers,
    reason_code,
    reviewed_pairs,
)
from parityalign.tasks import task_of
from parityalign.viewer.tables import Index

T = TypeVar("T")
R = TypeVar("R", bound=Record)

WHO = {"before": BEFORE_FILE, "after": AFTER_FILE, "teacher": TEACHER_FILE}
"""The models whose answers to test questions are kept, and in which files of `answers/`."""
GAINED, LOST, STILL_RIGHT, STILL_WRONG = "gained", "lost", "still right", "still wrong"
WON, UNCHANGED = "won", "unchanged"
_HAD_RIGHT = {
    VerdictKind.STUDENT_RIGHT: True,
    VerdictKind.BOTH: True,
    VerdictKind.STUDENT_ONLY: True,
    VerdictKind.TEACHER_ONLY: False,
    VerdictKind.NEITHER: False,
}
"""Whether the student had a pair right, by its verdict, where that is known."""


def files_read(run: Path) -> list[Path]:
    """The files of a run folder that an index is made from; one is made anew when any of them changes."""
    folders = ("images", "pairs", "verdicts", DISCREPANCY_FOLDER, STUDENT_FOLDER, "answers", "forgotten")
    found = [path for folder in folders for path in (run / folder).glob("*.json*")]
    return sorted([run / "run.yaml", run / SCORES, *(run / TESTS).glob("*/*.json*"), *found])


def read_run(run: Path, config: RunConfig | None, index: Index) -> None:
    """Fills an empty index.

    Args:
        run: The run folder.
        config: Its configuration, if it can be read: without it nothing is judged here.
        index: Gets pairs, test questions and problems.
    """
    reader = _Reader(run, config, index.problems)
    pairs = reader.pairs()
    index.fill("pairs", (narrow for narrow, _, _ in pairs))
    index.fill("pair_texts", (wide for _, wide, _ in pairs))
    index.fill("pair_words", (words for *_, words in pairs))
    index.fill("looks", reader.looks())
    questions = reader.questions()
    index.fill("questions", (narrow for narrow, _, _ in questions))
    index.fill("question_texts", (wide for _, wide, _ in questions))
    index.fill("question_words", (words for *_, words in questions))
    index.count_facets()


_Texts = tuple[str | None, str | None]
"""What the student and the teacher say; None: not asked."""
_Rows = tuple[tuple[object, ...], tuple[object, ...], tuple[object, ...]]
"""A row each of what is filtered by, what is shown, what is searched in."""


class _Reader:
    """Reads the files of one run folder.

    Attributes:
        problems: What could not be read.
    """

    def __init__(self, run: Path, config: RunConfig | None, problems: list[str]) -> None:
        self.run = run
        self.config = config
        self.problems = problems

    def pairs(self) -> list[_Rows]:
        """All pairs with what the models said of them."""
        pairs = self._noted(lambda: reviewed_pairs(self.run))
        self._tell_if_stale("verdicts", "The verdicts are of earlier pairs: identify has not run since.")
        verdicts = {each.pair_id: each for each in self._read("verdicts", VERDICTS, Verdict)}
        said = {each.pair_id: (each.student_text, each.teacher_text) for each in verdicts.values()}
        said = said or self._first_answers()
        kinds = {each.pair_id: each.kind for each in self._read("pairs", REPLIES, Reply) if each.pair_id}
        differ = {each.pair_id: each for each in self._read(DISCREPANCY_FOLDER, PAIR_DISCREPANCIES, PairDiscrepancy)}
        rationales = {each.pair_id: each.text for each in self._read(DISCREPANCY_FOLDER, RATIONALES, Rationale)}
        after = self._after(pairs, verdicts)
        return [
            _pair_rows(
                place,
                pair,
                verdicts.get(pair.pair_id),
                said.get(pair.pair_id, (None, None)),
                kinds.get(pair.pair_id, ""),
                differ.get(pair.pair_id),
                after.get(pair.pair_id, (None, "")),
                rationales.get(pair.pair_id),
            )
            for place, pair in enumerate(pairs)
        ]

    def looks(self) -> Iterator[tuple[object, ...]]:
        """Where the attention maps of both models lie, a row a pair and model."""
        for who in (TEACHER, STUDENT):
            for line in self._read(DISCREPANCY_FOLDER, f"{who}.jsonl", ObservationRef):
                if line.has_places and line.shard:
                    yield (*map(storable, (line.pair_id, who, line.shard)), line.row, line.tokens)

    def questions(self) -> list[_Rows]:
        """The questions of all test splits with the models' answers and scores."""
        said = {who: {each.item_id: each for each in self._read("answers", file, Answer)} for who, file in WHO.items()}
        places = count()
        return [
            row
            for folder in sorted((self.run / TESTS).glob("*/"))
            for row in self._questions_of(folder.name, said, places)
        ]

    def _questions_of(
        self, task: str, said: Mapping[str, Mapping[str, Answer]], places: Iterator[int]
    ) -> Iterator[_Rows]:
        metric = self._metric(task)
        for question in self._noted(lambda: questions_in(self.run, task)):
            answers = {who: of[key] for who, of in said.items() if (key := f"{task}:{question.question_id}") in of}
            if answers:
                yield _question_rows(next(places), task, question, answers, metric)

    def _metric(self, task: str) -> Metric | None:
        """What a task is scored by: as its scores say, else as it is configured; None where neither can be read."""
        try:
            scores = read_record(self.run / SCORES, Scores)
            if scores and task in scores.tasks:
                return find_metric(scores.tasks[task].metric)
            if self.config and task in self.config.tasks:
                return task_of(task, self.config.tasks[task]).metric
        except UserError as problem:
            self._note(str(problem))
        return None

    def _first_answers(self) -> dict[str, _Texts]:
        """While identify works: what student and teacher have answered so far, without verdicts."""
        student, teacher = (
            {each.item_id: each.text for each in self._read("verdicts", file, Answer)}
            for file in (STUDENT_ANSWERS, TEACHER_ANSWERS)
        )
        return {pair_id: (text, teacher.get(pair_id)) for pair_id, text in student.items()}

    def _after(self, pairs: Sequence[Pair], verdicts: Mapping[str, Verdict]) -> dict[str, tuple[str | None, str]]:
        """What the levelled student says, and how that changed, of the pairs that it was asked."""
        held = self._read("student", HELD_OUT, HeldOutPair)
        found: dict[str, tuple[str | None, str]] = {
            each.pair_id: (each.text, _change(each.right_before, each.right_after)) for each in held
        }
        again = {each.item_id: each.text for each in self._read("forgotten", "after.jsonl", Answer)}
        right = self._judged([pair for pair in pairs if pair.pair_id in again], again)
        for pair_id, text in again.items():
            had = _HAD_RIGHT.get(verdicts[pair_id].verdict) if pair_id in verdicts else None
            found.setdefault(pair_id, (text, _change(had, right.get(pair_id))))
        return found

    def _judged(self, pairs: Sequence[Pair], said: Mapping[str, str]) -> dict[str, bool | None]:
        """Whether these answers to pairs are right, judged as in identify; None: words do not tell."""
        found: dict[str, bool | None] = {}
        for name, data in self.config.tasks.items() if self.config else ():
            of_task = [pair for pair in pairs if pair.task == name]
            try:
                settings = self.config.identify.model_copy(update={"ask_teacher": "failures"})  # type: ignore[union-attr]
                verdicts = judge_answers(of_task, said, {}, task=task_of(name, data), settings=settings)
            except UserError as problem:
                self._note(str(problem))
                continue
            # Without a teacher's answer a pair that the student has wrong cannot be judged further.
            known = {VerdictKind.STUDENT_RIGHT: True, VerdictKind.UNSURE: None}
            found |= {each.pair_id: known.get(each.verdict, False) for each in verdicts}
        return found

    def _tell_if_stale(self, artifact: str, words: str) -> None:
        if self._noted(lambda: stale_inputs(self.run, artifact)):
            self._note(words)

    def _read(self, folder: str, file: str, kind: type[R]) -> list[R]:
        return self._noted(lambda: read_records(self.run / folder / file, kind))

    def _noted(self, read: Callable[[], Iterable[T]]) -> list[T]:
        """What can be read, up to what cannot; that is noted."""
        found: list[T] = []
        try:
            found.extend(read())
        except UserError as problem:
            self._note(str(problem))
        except OSError as problem:  # moved away in this moment, or not ours to read
            self._note(f"cannot read {problem.filename}: {problem.strerror}")
        return found

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def storable(text: str | None) -> str | None:
    """The text as SQLite takes it: halves of surrogate pairs are written out."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _pair_rows(  # noqa: PLR0913 - the files of a run
    place: int,
    pair: Pair,
    verdict: Verdict | None,
    said: _Texts,
    kind: str,
    differ: PairDiscrepancy | None,
    after: tuple[str | None, str],
    rationale: str | None,
) -> _Rows:
    told, change = after
    reason = verdict.reason if verdict else ""
    code = reason_code(reason) if verdict and verdict.verdict == VerdictKind.DROPPED else ""
    narrow = (pair.pair_id, pair.task, str(verdict.verdict) if verdict else "", kind, code, change, pair.teacher)
    gaps = (differ.confidence_gap, differ.attention_divergence, differ.rationale_gap) if differ else (None, None, None)
    scores = (verdict.student_score, verdict.teacher_score) if verdict else (None, None)
    sure = (differ.student_logprob, differ.teacher_logprob) if differ else (None, None)
    texts = (pair.image_id, pair.image, pair.question, pair.answer, pair.written, reason, *said, told)
    words = (pair.pair_id, pair.question, pair.answer, pair.written, *said, told, reason, rationale)
    return (
        (place, *map(storable, narrow), *gaps),
        (place, *map(storable, texts), *scores, *sure, storable(rationale)),
        (place, _searched(words)),
    )


def _question_rows(
    place: int, task: str, question: Question, answers: Mapping[str, Answer], metric: Metric | None
) -> _Rows:
    scores = {
        who: metric.on_question(answer.text, question.answers, question.exact) if metric else None
        for who, answer in answers.items()
    }
    before, after = scores.get("before"), scores.get("after")
    gain = after.value - before.value if before and after else None
    said = {who: _said(answer, scores[who]) for who, answer in answers.items()}
    narrow = (question.question_id, task, question.subset, _won(gain))
    texts = (question.image, question.question, json.dumps(question.answers), json.dumps(said))
    words = (question.question_id, question.question, *question.answers, *(each.text for each in answers.values()))
    return (
        (place, *map(storable, narrow), gain, after and after.value),
        (place, *map(storable, texts)),
        (place, _searched(words)),
    )


def _said(answer: Answer, score: Score | None) -> dict[str, object]:
    known = {"value": score.value, "compared": score.compared, "why": score.why} if score else {}
    return {"text": answer.text, "not_asked": answer.not_asked, **known}


def _won(gain: float | None) -> str:
    if gain is None:
        return ""
    return WON if gain > 0 else LOST if gain < 0 else UNCHANGED


def _change(before: bool | None, after: bool | None) -> str:
    """In words; empty where either is not known."""
    words = {(True, True): STILL_RIGHT, (True, False): LOST, (False, True): GAINED, (False, False): STILL_WRONG}
    return "" if before is None or after is None else words[before, after]


def _searched(texts: Iterable[str | None]) -> str | None:
    return storable("\n".join(text.casefold() for text in texts if text))
