"""Identify for answers that were made elsewhere: files in, verdicts out, no model is loaded.

    pairs     {"pair_id": "7", "image": "a.png", "question": "What is sold?", "answer": "tea"}
    answers   {"pair_id": "7", "text": "Tea."}

One object a line. Ids may be numbers, texts may be null, other keys are ignored.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, ValidationError

from parityalign.config import IdentifySettings
from parityalign.errors import UserError
from parityalign.records import Record, Verdict
from parityalign.seams import Task
from parityalign.stages._judging import NO_STUDENT_ANSWER, NO_TEACHER_ANSWER, Given, judge_of


class _Row(Record):
    model_config = ConfigDict(coerce_numbers_to_str=True)

    pair_id: str


class _PairRow(_Row):
    image: str | None
    question: str | None
    answer: str | None


class _AnswerRow(_Row):
    text: str | None


R = TypeVar("R", bound=_Row)


def identify_from_files(
    pairs: Path, *, teacher_answers: Path, student_answers: Path, task: Task, settings: IdentifySettings
) -> list[Verdict]:
    """One verdict a pair, in the order of the pairs' file.

    By default a pair that the student has right needs no teacher's answer, and a given one is not looked at;
    `settings.ask_teacher` of `all` fills all four cells. A pair without a needed answer is dropped.

    Raises:
        UserError: A file is missing, a line is broken or repeats an id, or an answer belongs to no pair; the
            message names file and line.
    """
    known = _read(pairs, _PairRow)
    if not known:
        raise UserError(f"{pairs} holds no pair; each line must have {_keys(_PairRow)}")
    student = _answers(student_answers, known, pairs)
    teacher = _answers(teacher_answers, known, pairs)
    judge = judge_of(task, settings)
    return [
        judge.verdict(
            pair_id,
            row.answer or "",
            student=Given(student.get(pair_id), NO_STUDENT_ANSWER),
            teacher=Given(teacher.get(pair_id), NO_TEACHER_ANSWER),
        )
        for pair_id, (_, row) in known.items()
    ]


def _answers(path: Path, known: Mapping[str, object], pairs: Path) -> dict[str, str | None]:
    rows = _read(path, _AnswerRow)
    for pair_id, (where, _) in rows.items():
        if pair_id not in known:
            raise UserError(f"{where}: the pair_id {pair_id!r} is not in {pairs}; take answers to these pairs")
    return {pair_id: row.text for pair_id, (_, row) in rows.items()}


def _read(path: Path, row_type: type[R]) -> dict[str, tuple[str, R]]:
    """{pair_id: (file and line, row)} in the order of the file."""
    rows: dict[str, tuple[str, R]] = {}
    for where, line in _lines(path, row_type):
        try:
            row = row_type.model_validate_json(line)
        except ValidationError as problem:
            raise UserError(f"{where}: {_in_words(problem)}; a line must have {_keys(row_type)}") from problem
        if row.pair_id in rows:
            raise UserError(f"{where}: the pair_id {row.pair_id!r} was given before, in {rows[row.pair_id][0]}")
        rows[row.pair_id] = (where, row)
    return rows


def _lines(path: Path, row_type: type[_Row]) -> Iterator[tuple[str, bytes]]:
    """The lines that are not blank, each with the words that say where it stands."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", line
    except OSError as problem:
        raise UserError(
            f"cannot read {path}: {problem.strerror}; give a file of JSON lines with {_keys(row_type)}"
        ) from problem


def _in_words(problem: ValidationError) -> str:
    found = problem.errors()[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {found['msg']}" if place else found["msg"]


def _keys(row_type: type[_Row]) -> str:
    return ", ".join(row_type.model_fields)
