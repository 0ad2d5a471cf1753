"""Reads pairs made by other tools, in these formats:

pairs           JSON lines {"pair_id": "7", "image": "a.png", "question": "What is sold?", "answer": "tea"}
sharegpt        {"id": "7", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\\nWhat ..."},
                {"from": "gpt", "value": "tea"}]}, as one JSON list or as JSON lines
messages        {"id": "7", "images": ["a.png"], "messages": [{"role": "user", "content": "<image>\\nWhat ..."},
                {"role": "assistant", "content": "tea"}]}
trl             the same, parted into `prompt` and `completion`
first-release   the PA output of the method's first release, or its predictions; see `mpa_release.py`
csv             a header and rows with the columns of `pairs`; with tabs if it is a `.tsv`; or a workbook, `.xlsx`
parquet         a file with these columns
lmms-eval       samples as lmms-eval logs them: the question is what was asked, the answer the first of the target
vlmevalkit      a table of predictions as VLMEvalKit writes it: the answer is the first of the row's (`evaluators.py`)

The names of the columns of `pairs`, `csv` and `parquet` may be others, which are given then.
"""

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from parityalign.config import ANSWER_COLUMNS, PAIR_FORMATS
from parityalign.core import (
    Record,
    Row,
    UserError,
    content_id,
    did_you_mean,
    given_lines,
    quoted_names,
    read_lines,
    read_rows,
)
from parityalign.data._pair_tables import (
    CSV,
    NEEDED,
    PARQUET,
    TABLE_SUFFIXES,
    pair_rows,
    parquet_rows,
    refuse_unknown_columns,
    renamed,
)
from parityalign.data._tables import table_lines, table_rows
from parityalign.data.evaluators import LMMS_EVAL, VLMEVALKIT, evaluator_of, read_sample
from parityalign.data.images import image_id
from parityalign.data.mpa_release import kind_of_item, read_item

SEVERAL_IMAGES = "several_images"
"""Why a pair cannot be used: it is about more than one image."""
_IMAGE_MARKS = ("<image>\n", "\n<image>", "<image>")


class GivenPair(Record):
    """A pair from another tool."""

    pair_id: str
    where: str
    """File and place, for messages."""
    question: str | None
    answer: str | None
    image: str = ""
    """The image's path as the file has it; empty where it names none."""
    picture: bytes | None = None
    """The image's bytes, where the file holds them and they were wanted."""
    student_text: str | None = None
    """What the file says that the student answered."""
    teacher_text: str | None = None
    fault: str = ""
    """What keeps the pair from being used: a reason code."""


def read_given_pairs(
    path: Path,
    *,
    task: str,
    form: str | None,
    columns: Mapping[str, str],
    pictures: bool = False,
    questions_alone: bool = False,
) -> Iterator[GivenPair]:
    """The pairs of a file, in its order.

    A pair without an id gets the one of our records, with no teacher: `content_id(image, task, question, answer, "")`,
    with the image as it is in the file (for image bytes: the first 32 digits of their SHA-256).

    Args:
        path: The file.
        task: The task that the pairs belong to.
        form: One of the names above; None: detected from the suffix of a table and the keys of the first row.
        columns: The file's own names for `pair_id`, `image`, `question`, `answer`, `student_text`, `teacher_text`.
        pictures: Whether images inside a Parquet file are read.
        questions_alone: Whether rows need no answer; those that have one are read without it.

    Raises:
        UserError: The file is missing or holds something else, or lacks a named column.
    """
    if form not in (None, *PAIR_FORMATS):
        raise UserError(f"there is no form of pairs {form!r}. {did_you_mean(str(form), PAIR_FORMATS)}")
    refuse_unknown_columns(columns)
    form = form or _form_of_table(path, columns) or (_PLAIN if columns else None)
    needed = ("question",) if questions_alone else NEEDED
    if form == PARQUET:
        rows = parquet_rows(path, columns, needed, pictures=pictures)
    elif form == CSV:
        rows = pair_rows(path, columns, needed)
    elif columns and form != _PLAIN:
        raise UserError(f"columns can be named for tables and plain rows only, and {path} is read as {form}")
    elif form == VLMEVALKIT and path.suffix.lower() in TABLE_SUFFIXES:
        rows = table_rows(path)
    else:
        rows = (renamed(row, columns) for row in json_rows(path, _EXPECTED))
    row = None
    for row in rows:
        form_of_row = form or _form_of(row, path)
        if questions_alone and form_of_row in _OWN_COLUMNS:
            row = Row(row.where, {**row.values, "answer": None}, row.place)
        for pair in FORMS[form_of_row](row, task):
            yield pair.model_copy(update={"answer": None}) if questions_alone else pair
    if row is None:
        raise UserError(f"{path} is empty; expected {_EXPECTED}")


def _form_of_table(path: Path, columns: Mapping[str, str]) -> str | None:
    """The form of a table by its suffix and, where no columns are named, its header; None for other files."""
    form = TABLE_SUFFIXES.get(path.suffix.lower())
    header = next(table_lines(path), None) if form == CSV and not columns else None
    return VLMEVALKIT if header and evaluator_of(header.fields) == VLMEVALKIT else form


def json_rows(path: Path, expected: str) -> list[Row]:
    """The rows of one JSON list or of JSON lines, detected by the first non-blank character; none of an empty file.

    Raises:
        UserError: The file is missing or something else; the message names what was `expected`.
    """
    try:
        first = next((line.removeprefix(BOM_UTF8).lstrip()[:1] for _, line in given_lines(path)), b"")
    except OSError as problem:
        raise UserError(f"cannot read {path}: {problem.strerror}; give a file of {expected}") from problem
    if not first:
        return []
    return read_rows(path) if first == b"[" else read_lines(path)


def _form_of(row: Row, path: Path) -> str:
    told = next((name for name, talk in _TALKS.items() if talk.turns[0] in row.values), None)
    if told:
        return told
    if kind_of_item(row.values):
        return "first-release"
    if evaluator := evaluator_of(row.values):
        return evaluator
    if "question" in row.values or "pair_id" in row.values:
        return "pairs"
    raise UserError(f"{row.where} is not a pair: expected {_EXPECTED}; found the keys {quoted_names(row.values)}")


def _plain(row: Row, task: str) -> Iterator[GivenPair]:
    question, answer = row.text_or_none("question"), row.text_or_none("answer")
    image = row.text_or_none("image") if "image" in row.values else None
    pair_id = row.text_or_none("pair_id") if row.values.get("pair_id") is not None else None
    known = pair_id or content_id(image or "", task, question or "", answer or "", "")
    yield _given(row, known, question, answer, image=image or "")


def _table_pair(row: Row, task: str) -> Iterator[GivenPair]:
    image = row.values.get("image")
    if isinstance(image, Mapping):  # as the `datasets` library keeps images
        image = image.get("bytes") or image.get("path")
    picture = image if isinstance(image, bytes) else None
    named = image_id(picture) if picture is not None else image
    for pair in _plain(Row(row.where, {**row.values, "image": named}, row.place), task):
        yield pair if picture is None else pair.model_copy(update={"image": "", "picture": picture})


def _first_release(row: Row, _: str) -> Iterator[GivenPair]:
    """A row of the first release; it has an id of its own, so the task is not needed."""
    item = read_item(row)
    yield _given(row, item.item_id, item.question, item.answer, image=item.image)


def _evaluated(row: Row, _: str) -> Iterator[GivenPair]:
    """A row of an evaluator; it has an id of its own, so the task is not needed."""
    sample = read_sample(row)
    answer = sample.answers[0] if sample.answers else None
    yield _given(row, sample.item_id, sample.question, answer, image=sample.image, answered=False)


class _Talk(NamedTuple):
    """How a form writes a conversation."""

    turns: tuple[str, ...]
    """The keys of its lists of turns."""
    speaker: str
    text: str
    asks: str
    says: str


def _conversation(row: Row, task: str, talk: _Talk) -> Iterator[GivenPair]:
    """One pair for every question with an answer after it; if there are several, their number is appended to the id."""
    said = [turn for key in talk.turns for turn in row.rows(key)]
    turns = [turn for turn in said if turn.values.get(talk.speaker) != "system"]
    speakers = [turn.text(talk.speaker) for turn in turns]
    if not turns or speakers != [talk.asks, talk.says] * (len(turns) // 2):
        raise UserError(
            f"{row.where}: the turns should be {talk.asks} and {talk.says} in turn, but are {quoted_names(speakers)}"
        )
    images = _images_of(row)
    image = images[0] if len(images) == 1 else ""
    own_id = row.text_or_none("id") if "id" in row.values else None
    for number, (asked, answered) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
        question, answer = _without_mark(_text_of(asked, talk.text)), _text_of(answered, talk.text)
        pair_id = own_id if own_id is None or len(turns) == 2 else f"{own_id}:{number}"
        known = pair_id or content_id(image, task, question or "", answer or "", "")
        pair = _given(row, known, question, answer, image=image, answered=len(turns) == 2)
        yield pair.model_copy(update={"fault": SEVERAL_IMAGES}) if len(images) > 1 else pair


def _images_of(row: Row) -> list[str]:
    """The images of a conversation; under `image` one, under `images` a list."""
    if "image" in row.values:
        image = row.text_or_none("image")
        return [image] if image else []
    return [*row.texts("images")] if "images" in row.values else []


def _text_of(turn: Row, key: str) -> str | None:
    """The text of a turn; it may come in parts: {"type": "image"}, {"type": "text", "text": "What ..."}."""
    if not isinstance(turn.values.get(key), list):
        return turn.text_or_none(key)
    parts = (part for part in turn.rows(key) if part.values.get("type") == "text")
    return "\n".join(part.text_or_empty("text") for part in parts)


def _without_mark(text: str | None) -> str | None:
    for mark in _IMAGE_MARKS:
        text = text and text.removeprefix(mark).removesuffix(mark)
    return text


def _given(
    row: Row, pair_id: str, question: str | None, answer: str | None, *, image: str, answered: bool = True
) -> GivenPair:
    student, teacher = (row.text_or_none(key) if answered and key in row.values else None for key in ANSWER_COLUMNS)
    return GivenPair(
        pair_id=pair_id,
        where=row.where,
        question=question,
        answer=answer,
        image=image,
        student_text=student,
        teacher_text=teacher,
    )


def _talking(talk: _Talk) -> Callable[[Row, str], Iterator[GivenPair]]:
    return lambda row, task: _conversation(row, task, talk)


_PLAIN = "pairs"
_OWN_COLUMNS = (_PLAIN, CSV, PARQUET)
"""The forms whose rows have the columns of pairs."""
_TALKS: Mapping[str, _Talk] = MappingProxyType(
    {
        "sharegpt": _Talk(("conversations",), "from", "value", "human", "gpt"),
        "messages": _Talk(("messages",), "role", "content", "user", "assistant"),
        "trl": _Talk(("prompt", "completion"), "role", "content", "user", "assistant"),
    }
)
FORMS: Mapping[str, Callable[[Row, str], Iterator[GivenPair]]] = MappingProxyType(
    {
        _PLAIN: _plain,
        **{name: _talking(talk) for name, talk in _TALKS.items()},
        "first-release": _first_release,
        CSV: _table_pair,
        PARQUET: _table_pair,
        LMMS_EVAL: _evaluated,
        VLMEVALKIT: _evaluated,
    }
)
_EXPECTED = (
    "rows with pair_id, image, question, answer (pair_id may be left out); with id, image, conversations; with "
    "messages, or prompt and completion, and images; of the first release's PA output; or of lmms-eval or VLMEvalKit"
)
