"""Identify for existing answers: files in, verdicts out, no model is loaded.

    pairs     {"pair_id": "7", "image": "a.png", "question": "What is sold?", "answer": "tea"}
    answers   {"pair_id": "7", "text": "Tea."}

One object a line, or one of the other formats of `data/given_pairs.py`; answers may also be a table with these columns,
samples of lmms-eval, a table of VLMEvalKit, or the predictions of the method's first release. Ids may be numbers, texts
may be null, other keys are ignored.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from parityalign.config import IdentifySettings
from parityalign.core import Pair, Record, Row, Task, UserError, Verdict, refuse_repeated
from parityalign.data import (
    GivenPair,
    evaluator_of,
    is_text_table,
    json_rows,
    kind_of_item,
    read_given_pairs,
    read_item,
    read_sample,
    table_rows,
)
from parityalign.stages.judging import EMPTY_QUESTION, NO_STUDENT_ANSWER, NO_TEACHER_ANSWER, Given, dropped, judge_of

_PAIR_ID, _TEXT = "pair_id", "text"
_NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


class _GivenAnswer(Record):
    pair_id: str
    where: str
    text: str | None


R = TypeVar("R", GivenPair, _GivenAnswer)


def identify_from_files(
    pairs: Path,
    *,
    teacher_answers: Path,
    student_answers: Path,
    task: Task,
    settings: IdentifySettings,
    form: str | None = None,
    columns: Mapping[str, str] = _NO_COLUMNS,
) -> list[Verdict]:
    """One verdict a pair, in the order of the pairs' file.

    By default a pair that the student has right needs no teacher's answer, and a given one is ignored; with
    `settings.ask_teacher` of `all` it counts for every pair. A pair that lacks its question, its answer or a needed
    model's answer is dropped.

    Args:
        pairs: The pairs; for `form` and `columns` see `read_given_pairs`.
        teacher_answers: The teacher's answers to them.
        student_answers: The student's.
        task: The task that the pairs belong to.
        settings: The rule and its threshold.
        form: The format of the pairs; None: detected.
        columns: The files' own names: of the pairs' columns, of `pair_id` and `text` of the answers.

    Raises:
        UserError: A file is missing, a row is broken or repeats an id, or an answer belongs to no pair; the
            message names file and line.
    """
    of_pairs = {key: name for key, name in columns.items() if key != _TEXT}
    known = _by_id(read_given_pairs(pairs, task=task.name, form=form, columns=of_pairs))
    student = _answers(student_answers, known, pairs, columns)
    teacher = _answers(teacher_answers, known, pairs, columns)
    return judge_answers(list(known.values()), student, teacher, task=task, settings=settings)


def judge_answers(
    pairs: Sequence[GivenPair | Pair],
    student: Mapping[str, str | None],
    teacher: Mapping[str, str | None],
    *,
    task: Task,
    settings: IdentifySettings,
) -> list[Verdict]:
    """One verdict per pair, in order, from answers by pair id; see `identify_from_files`.

    Raises:
        UserError: A pair id is given twice.
    """
    judge = judge_of(task, settings)
    refuse_repeated((pair.pair_id for pair in pairs), "the pairs")

    def verdict(pair: GivenPair | Pair) -> Verdict:
        of_student = Given(student.get(pair.pair_id), NO_STUDENT_ANSWER)
        of_teacher = Given(teacher.get(pair.pair_id), NO_TEACHER_ANSWER)
        if not (pair.question or "").strip():
            return dropped(pair.pair_id, EMPTY_QUESTION, of_student, of_teacher)
        return judge.verdict(pair.pair_id, pair.answer or "", of_student, of_teacher, question=pair.question or "")

    return [verdict(pair) for pair in pairs]


def named_columns(columns: str | None) -> dict[str, str]:
    """{our name: the file's name} from `question=q,answer=a`.

    Raises:
        UserError: It is malformed.
    """
    named = dict(part.split("=", 1) for part in columns.split(",") if "=" in part) if columns else {}
    if columns and len(named) < columns.count(",") + 1:
        raise UserError(f"--columns is {columns!r}; write it like question=q,answer=a,image=img,pair_id=id")
    return named


def _answers(
    path: Path, known: Mapping[str, GivenPair], pairs: Path, columns: Mapping[str, str]
) -> dict[str, str | None]:
    rows = table_rows(path) if is_text_table(path) else json_rows(path, f"JSON lines with '{_PAIR_ID}', '{_TEXT}'")
    answers = _by_id(_answer(row, columns) for row in rows)
    for answer in answers.values():
        if answer.pair_id not in known:
            raise UserError(
                f"{answer.where}: the pair_id {answer.pair_id!r} is not in {pairs}; give answers to these pairs"
            )
    return {pair_id: answer.text for pair_id, answer in answers.items()}


def _answer(row: Row, columns: Mapping[str, str]) -> _GivenAnswer:
    if kind_of_item(row.values) == "pi":
        item = read_item(row)
        return _GivenAnswer(pair_id=item.item_id, where=row.where, text=item.prediction)
    if evaluator_of(row.values) and _TEXT not in columns:
        sample = read_sample(row)
        return _GivenAnswer(pair_id=sample.item_id, where=row.where, text=sample.prediction)
    # The id may be called otherwise in the pairs alone; the text is the answers' own.
    pair_id = columns.get(_PAIR_ID, _PAIR_ID)
    named = row.text(pair_id if pair_id in row.values else _PAIR_ID)
    return _GivenAnswer(pair_id=named, where=row.where, text=row.text_or_none(columns.get(_TEXT, _TEXT)))


def _by_id(rows: Iterable[R]) -> dict[str, R]:
    found: dict[str, R] = {}
    for row in rows:
        if row.pair_id in found:
            before = found[row.pair_id].where
            raise UserError(f"{row.where}: the pair_id {row.pair_id!r} was given before, in {before}")
        found[row.pair_id] = row
    return found
