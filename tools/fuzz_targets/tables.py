"""Parquet files: pictures, pairs and questions in one, or words."""

import hashlib
import io
import json
from collections import deque
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from fuzz_targets._bytes import broken_bytes
from parityalign.core import UserError
from parityalign.data import Unfit, open_questions, open_source, read_given_pairs
from parityalign.tasks import load_task


def _table(*, named: bool, compression: str) -> bytes:
    file, picture = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(picture, "PNG")
    cells = [{"bytes": picture.getvalue(), "path": "a.png"}, {"bytes": None, "path": "../a.png"}, None]
    if named:
        cells[2] = {"bytes": None, "path": "zip://a.png::/etc/a.zip"}
    table = pa.table(
        {
            "question_id": [1.0, 2.0, None],
            "image_id": ["a", "b", "c"],
            "question": ["What?", None, "é"],
            "answer": ["tea", "1", ""],
            "answers": [["tea"] * 10, [], None],
            "image": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        }
    )
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), file, compression=compression)
    return file.getvalue()


_GOOD = [_table(named=named, compression=kind) for named in (True, False) for kind in ("none", "snappy")]
_PIECES = [b"Image", b"Value", b'"_type"', b"PAR1", b"../", b"\xff\xfe", b"\x15\x80\x80\x80\x80\x08"]

_PATHS = st.sampled_from(
    ["a.png", "../a.png", "/etc/passwd", "a\0b", "x" * 5000, "", "zip://a::b.zip", "xz://::/etc/passwd"]
)
_PATHS |= st.sampled_from(
    ["dir:///etc", "file:///etc/passwd", "reference://a", "memory://a", "://", "zip://::zip://::", "a:b"]
)
_CELLS = [
    st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=9), "path": st.none() | _PATHS}),
    *(st.binary(max_size=9), _PATHS, st.integers(0, 9), st.lists(st.binary(max_size=3), max_size=2)),
]
_VALUES = [
    *(st.integers(-1, 2**63 - 1), st.floats(), st.text(max_size=9), st.binary(max_size=9), st.booleans()),
    *(st.decimals(-99, 99, places=2), st.dates(), st.datetimes(), st.lists(st.text(max_size=5), max_size=10)),
    st.sampled_from(["['a', 'b']", "[]", "", " ", "tea"]),
]
_COLUMNS = ["question_id", "image_id", "question", "answer", "answers", "pair_id", "extra"]
_FEATURES = st.sampled_from(
    [
        '{"image": {"_type": "Image"}}',
        *('{"image": {"_type": "Nothing"}}', '{"image": 1}', "[]", "1", "{", '{"gone": {"_type": "Image"}}'),
        '{"image": {"_type": "Sequence", "feature": {"_type": "Image"}}}',
    ]
)


@st.composite
def _built(draw: st.DrawFn) -> bytes:
    """A table that is whole, whatever is in it."""
    count = draw(st.integers(0, 3))

    def column(kinds: list[st.SearchStrategy[Any]]) -> list[Any]:
        return draw(st.lists(st.none() | draw(st.sampled_from(kinds)), min_size=count, max_size=count))

    names = draw(st.lists(st.sampled_from(_COLUMNS), unique=True))
    table = pa.table({"image": column(_CELLS), **{name: column(_VALUES) for name in names}})
    if draw(st.booleans()):
        features = f'{{"info": {{"features": {draw(_FEATURES)}}}}}'
        table = table.replace_schema_metadata({"huggingface": features})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


INPUTS = _built() | broken_bytes(_GOOD, _PIECES)
_ONE_OF = 4
"""A data set is opened for one of so many inputs, since that takes as long as hundreds of the others."""


@cache
def _folder() -> Path:
    return Path(mkdtemp(prefix="fuzz-tables-"))


def check(content: bytes) -> None:
    """Reads a table in every way that tables are read."""
    path = _folder() / "validation.parquet"
    path.write_bytes(content)
    _offered(str(path))
    try:
        deque(read_given_pairs(path, task="textvqa", form=None, columns={}))
    except UserError as error:
        str(error)
    if hashlib.sha256(content).digest()[0] % _ONE_OF == 0:
        _offered(f"hf:{_folder()}")
        try:
            deque(open_questions(load_task("textvqa"), str(_folder()))[0])
        except UserError as error:
            str(error)


def _offered(spec: str) -> None:
    try:
        source = open_source(spec)
        source.count()
        for found in source.images():
            try:
                found.read()
            except Unfit as unfit:
                str(unfit)
    except UserError as error:
        str(error)
