"""Reads the files of the method's first release (vl2g/MPA 4e69e39, `data/` and `scripts/results/`), for comparison.

Each stage of that release wrote its own keys:

    PA output       question_id, image_path, ground_truth_question, ..._answer, predicted_question, ..._answer
    PI predictions  question_id, image_path, PA_question, PA_answer, predictions
    evaluation      question_id, image_path, GT_question, GT_answer, predictions
    conversations   id, image, conversations: [{from: human, value: "<image>\\n..."}, {from: gpt, value: ...}]

Ids are numbers or texts. Image paths are those of the author's machine, so only the base name is kept. A question or
answer that its script failed to parse from the reply is null; PA questions lack their question mark.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from parityalign.core import Question, Record, Row, UserError, has_keys, quoted_names, read_json, read_rows

_IMAGE_MARK = "<image>\n"


class ReleaseRow(Record):
    """One row of any of these files."""

    item_id: str
    image: str
    """Base name of the image's file."""
    question: str | None
    """None if the release could not parse one from the reply."""
    answer: str | None
    """The reference answer: PA's, the label, or the second turn."""
    prediction: str | None = None
    """The judged model's answer; None in files that hold only pairs."""


class _Shape(NamedTuple):
    keys: tuple[str, ...]
    """Every row of such a file has these."""
    read: Callable[[Row], ReleaseRow]


def read_item(row: Row) -> ReleaseRow:
    """What one row of a PA output, a prediction file or a file of conversations says; its keys tell which one it is.

    Raises:
        UserError: It is not of any of these kinds.
    """
    for shape in _SHAPES.values():
        if has_keys(row, shape.keys):
            return shape.read(row)
    raise _unknown(row, "the first release", (shape.keys for shape in _SHAPES.values()))


def kind_of_item(values: Mapping[str, object]) -> str | None:
    """`pa`, `pi`, `evaluation` or `conversations` for a row with such keys, None for any other."""
    return next((kind for kind, shape in _SHAPES.items() if values.keys() >= set(shape.keys)), None)


def read_combined(path: Path) -> list[Question]:
    """The questions of a combined file, each with the base name of its image.

    These are `okvqa_val_combine.json` and `okvqa_train_unique_combine.json`, the `*_combined.json` and
    `train_onePerImage.json` of ChartVQA, and cuts of the released TextVQA and ST-VQA files. Rows of ChartVQA
    without an id get their position as id.

    Raises:
        UserError: The file is missing, is not JSON, or a row is not of any of these kinds.
    """
    wrapped = isinstance(read_json(path), dict)
    return [question for row in read_rows(path, "data" if wrapped else None) for question in _questions(row)]


def base_name(path: str) -> str:
    """The base name of the author's path."""
    return PurePosixPath(path.replace("\\", "/")).name


def _pair(row: Row, *, question: str, answer: str, prediction: str | None = None) -> ReleaseRow:
    return ReleaseRow(
        item_id=row.text("question_id"),
        image=base_name(row.text("image_path")),
        question=row.text_or_none(question),
        answer=row.text_or_none(answer),
        prediction=row.text_or_none(prediction) if prediction else None,
    )


def _conversation(row: Row) -> ReleaseRow:
    turns = row.rows("conversations")
    said_by = [turn.text("from") for turn in turns]
    if said_by != ["human", "gpt"]:
        told = quoted_names(said_by)
        raise UserError(f"{row.where}: 'conversations' should be one turn of human and one of gpt, but has {told}")
    asked, answer = (turn.text_or_none("value") for turn in turns)
    return ReleaseRow(
        item_id=row.text("id"),
        image=base_name(row.text("image")),
        question=asked and asked.removeprefix(_IMAGE_MARK),
        answer=answer,
    )


_SHAPES: Mapping[str, _Shape] = MappingProxyType(
    {
        "pa": _Shape(
            ("question_id", "image_path", "predicted_question", "predicted_answer"),
            lambda row: _pair(row, question="predicted_question", answer="predicted_answer"),
        ),
        "pi": _Shape(
            ("question_id", "image_path", "PA_question", "PA_answer", "predictions"),
            lambda row: _pair(row, question="PA_question", answer="PA_answer", prediction="predictions"),
        ),
        "evaluation": _Shape(
            ("question_id", "image_path", "GT_question", "GT_answer", "predictions"),
            lambda row: _pair(row, question="GT_question", answer="GT_answer", prediction="predictions"),
        ),
        "conversations": _Shape(("id", "image", "conversations"), _conversation),
    }
)


def _questions(row: Row) -> Iterator[Question]:
    """The questions of a row of a combined file: one, or those of its image."""
    if has_keys(row, ("imgname", "query", "label")):
        number = row.text("question_id") if "question_id" in row.values else str(row.place)
        answers = row.texts("label")
        yield _question(number, row.text_or_empty("imgname"), row.text_or_empty("query"), answers)
    elif has_keys(row, ("file_path", "question", "answers")):
        yield _asked(row, base_name(row.text_or_empty("file_path")))
    elif has_keys(row, ("image_id", "qas")):
        for asked in row.rows("qas"):
            yield _asked(asked, _image_of(row, "train2014"))
    elif has_keys(row, ("image_id", "question", "answers")):
        yield _asked(row, _image_of(row, "val2014"))
    else:
        known = (("imgname", "query", "label"), ("file_path", "question", "answers"), ("image_id", "qas"))
        raise _unknown(row, "a combined file", (*known, ("image_id", "question", "answers")))


def _asked(row: Row, image: str) -> Question:
    return _question(row.text("question_id"), image, row.text_or_empty("question"), row.texts("answers"))


def _question(question_id: str, image: str, question: str, answers: tuple[str, ...]) -> Question:
    return Question(question_id=question_id, image=image, question=question, answers=answers)


def _image_of(row: Row, part: str) -> str:
    """COCO's file name for a number (OK-VQA), OpenImages' for 16 hexadecimal digits (TextVQA); empty for null."""
    number = row.text_or_empty("image_id")
    if not number:
        return ""
    return f"{number}.jpg" if len(number) == 16 else f"COCO_{part}_{number.rjust(12, '0')}.jpg"


def _unknown(row: Row, kind: str, shapes: Iterable[tuple[str, ...]]) -> UserError:
    expected = "; or ".join(quoted_names(keys) for keys in shapes)
    return UserError(
        f"{row.where} is not a row of {kind}: expected the keys {expected}; found {quoted_names(row.values)}"
    )
