"""Readers of benchmarks: rows of released files and of tables give questions, or are refused in words."""

import datetime
import json
import os
from contextlib import suppress
from decimal import Decimal
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import strategies as st

from parityalign.core import Benchmark, Question, Row, UserError, load_part, part_names

_KEYS = ["question_id", "image_id", "image", "question", "answers", "answer", "query", "label", "type", "path"]
_KEYS += ["human_or_machine", "imgname", "file_path", "data", "questions", "annotations"]
_TEXTS = [
    "",
    " ",
    "tea",
    "['a', 'b']",
    "[]",
    "[2010, 2014]",
    "human_test",
    "0",
    "../a",
    "/etc/passwd",
    "a\0",
    "x" * 300,
]
_LEAVES = st.sampled_from([*_TEXTS, None, True, 0, 1, 297147, -1, 12.0, 3.1, float("nan"), float("inf"), 10**400])
_VALUES = st.recursive(
    _LEAVES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=10) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4),
    max_leaves=20,
)
_CELLS = st.sampled_from([b"", b"a", Decimal("3.10"), datetime.datetime(2020, 1, 1), {1: 2}, {"bytes": b"a"}, (1, 2)])
_ROWS = st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=8)

INPUTS = st.tuples(
    st.lists(_ROWS, max_size=3) | _VALUES,
    st.dictionaries(st.sampled_from(_KEYS), _VALUES | _CELLS, max_size=8),
)
_FILES = ("TextVQA_0.5.1_val.json", "train_task_1.json", "test/test_human.json", "test/test_augmented.json")
_FILES += ("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json")


@cache
def _folder() -> Path:
    folder = Path(mkdtemp(prefix="fuzz-benchmarks-"))
    (folder / "test").mkdir()
    return folder


def check(given: tuple[object, dict[str, object]]) -> None:
    """Reads released files and one row of a table by every reader."""
    released, cells = given
    for name in _FILES:
        rows = released if "test/" in name else {key: released for key in ("data", "questions", "annotations")}
        (_folder() / name).write_text(json.dumps(rows))
    for name in part_names("benchmarks"):
        benchmark = load_part("benchmarks", name, Benchmark)
        asked: list[Question] = []
        with suppress(UserError):
            asked += benchmark.read_test(_folder())
            _require_inside(asked)
        with suppress(UserError):
            asked += [benchmark.read_row(Row("a row", cells))] if benchmark.read_row else []
        for question in asked:
            if Question.model_validate_json(question.model_dump_json()) != question:
                raise AssertionError(f"the question does not come back from its record: {question}")


def _require_inside(asked: list[Question]) -> None:
    for question in asked:
        if question.image and not Path(os.path.normpath(question.image)).is_relative_to(_folder()):
            raise AssertionError(f"the image {question.image!r} is not in the release")
