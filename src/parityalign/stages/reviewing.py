"""A person's marks on pairs: which to drop, which answers to correct.

    {"pair_id": "9f...", "mark": "drop", "note": "the sign cannot be read"}
    {"pair_id": "b1...", "mark": "correct", "answer": "tea"}
    {"pair_id": "9f...", "mark": "keep"}

JSON lines, written by hand or by a program with `append_marks`; other keys are ignored. The last mark of a pair counts.
The file with the pairs stays as it was written: a dropped pair is not asked about and gets a verdict with the reason,
a corrected one goes on with the person's answer.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from parityalign.core import (
    Artifact,
    Pair,
    Record,
    Row,
    UserError,
    WorkFailed,
    content_id,
    did_you_mean,
    read_lines,
    writing,
)
from parityalign.stages.parsing import fault_of_answer

REVIEWED = "reviewed.jsonl"
"""In the artifact of identify: the marks that it was made with, as far as they change a pair."""
REVIEW = "review"
"""What the reason of a dropped pair begins with."""
_BY_PERSON = "dropped by a person"
MarkKind = Literal["keep", "drop", "correct"]
KINDS: tuple[MarkKind, ...] = get_args(MarkKind)


class Mark(Record):
    """What a person says of a pair."""

    pair_id: str
    mark: MarkKind
    answer: str | None = None
    """The right answer, if the mark is `correct`."""
    note: str = ""
    """Why, in a few words."""


@dataclass(frozen=True)
class Review:
    """The marks of a run, the last of each pair."""

    marks: Mapping[str, Mark]

    @cached_property
    def changing(self) -> dict[str, Mark]:
        """Those that drop or correct a pair."""
        return {pair_id: mark for pair_id, mark in self.marks.items() if mark.mark != "keep"}

    @property
    def digest(self) -> str:
        """What matters of it to the pairs; empty: nothing."""
        listed = sorted(self.changing.items())
        return content_id(*(mark.model_dump_json() for _, mark in listed)) if listed else ""

    def corrected(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs, with a person's answers where there are some."""
        for pair in pairs:
            mark = self.changing.get(pair.pair_id)
            answer = mark.answer if mark else None
            changed = answer is not None and answer != pair.answer
            yield pair.model_copy(update={"answer": answer, "written": pair.answer}) if changed else pair

    def reason(self, pair: Pair) -> str | None:
        """Why a person dropped a pair; None: nobody did."""
        mark = self.changing.get(pair.pair_id)
        return f"{REVIEW}: {mark.note or _BY_PERSON}" if mark and mark.mark == "drop" else None


NO_REVIEW = Review({})


def read_review(path: Path) -> Review:
    """The marks in a file; an empty one has none.

    Raises:
        UserError: The file cannot be read, or a line is broken; the message names it.
    """
    try:
        empty = path.stat().st_size == 0
    except OSError as problem:
        raise UserError(f"cannot read the marks in {path}: {problem.strerror}") from problem
    return Review({} if empty else {mark.pair_id: mark for mark in map(mark_in, read_lines(path))})


def mark_in(row: Row) -> Mark:
    """The mark in a line of the file.

    Raises:
        UserError: It is none; the message says why.
    """
    pair_id, kind = row.text("pair_id"), row.text("mark")
    if kind not in KINDS:
        raise UserError(f"{row.where}: there is no mark {kind!r}. {did_you_mean(kind, KINDS)}")
    answer = row.text_or_none("answer") if "answer" in row.values else None
    if (answer is None) == (kind == "correct"):
        wanted = "needs an 'answer'" if answer is None else "takes no 'answer'; to change the answer mark it 'correct'"
        raise UserError(f"{row.where}: the mark {kind!r} {wanted}")
    answer = answer and " ".join(answer.split())
    if answer is not None and (fault := fault_of_answer(answer)):
        raise UserError(f"{row.where}: the answer {answer[:60]!r} cannot be trained on: {fault}")
    note = row.text_or_empty("note") if "note" in row.values else ""
    return Mark(pair_id=pair_id, mark=kind, answer=answer, note=" ".join(note.split())[:200])


def append_marks(path: Path, marks: Sequence[Mark]) -> None:
    """Adds marks to a file, all or none, in one write: several programs may do so at a time. Makes it if there is none.

    Raises:
        WorkFailed: The disk refused; the file is as it was.
    """
    lines = "".join(f"{mark.model_dump_json(exclude_defaults=True)}\n" for mark in marks).encode()
    with writing(path), path.open("ab+", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        if before:
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read(1) == b"\n" else b"\n" + lines  # written by hand, without a last line end
        if file.write(lines) != len(lines):
            file.truncate(before)
            raise WorkFailed(f"cannot write {path}: the disk is full. No mark was added: free some space")
        os.fsync(file.fileno())


def write_review(artifact: Artifact, review: Review, pairs: Sequence[Pair]) -> dict[str, int]:
    """Records in identify's artifact which marks it was made with, and tells of them.

    Args:
        artifact: Gets `reviewed.jsonl` where a mark changes a pair.
        review: All marks.
        pairs: All pairs, with the person's answers.

    Returns:
        How many pairs were corrected and dropped, and how many marks belong to no pair; empty without marks.
    """
    if not review.marks:
        return {}
    known = {pair.pair_id for pair in pairs}
    used = [mark for pair_id, mark in review.changing.items() if pair_id in known]
    if used:
        artifact.stream(REVIEWED, Mark).write(used)
    counts = {
        "corrected": sum(pair.written is not None for pair in pairs),
        "dropped": sum(mark.mark == "drop" for mark in used),
        "unknown": len(review.marks.keys() - known),
    }
    artifact.note(review_in_words(counts))
    return counts


def review_in_words(counts: Mapping[str, int]) -> str:
    """What a person did to the pairs of a run, by the counts of `write_review`."""
    told = (
        f"A person corrected the answers of {_counted(counts['corrected'], 'pair')} and dropped {counts['dropped']:,}."
    )
    unknown = counts["unknown"]
    return f"{told} Of no pair in this run: {_counted(unknown, 'mark')}." if unknown else told


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
