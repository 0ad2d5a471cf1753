"""Tar archives: the images in one, or words; every member is offered, nothing is read twice."""

import io
import tarfile
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import strategies as st
from PIL import Image

from fuzz_targets._bytes import broken_bytes
from parityalign.core import UserError
from parityalign.data import Unfit, open_source


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(file, "PNG")
    return file.getvalue()


def _archive(form: int, name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, pax_headers={"a": "b"}) as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"{name}{number}.png")
            member.size = len(_picture())
            archive.addfile(member, io.BytesIO(_picture()))
    return file.getvalue()


_LONG = (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
_GOOD = [_archive(form, name) for form in (tarfile.USTAR_FORMAT, *_LONG) for name in ("a", "é")]
_GOOD += [_archive(form, "long/" * 60) for form in _LONG]

_NAMES = st.sampled_from([b"a.png", b"b/a.json", b"\xff.png", b"../a.png", b"\0", b"x" * 100]) | st.binary(max_size=9)
_KINDS = st.sampled_from([b"0", b"0", b"\0", b"5", b"2", b"S", b"x", b"x", b"g", b"L", b"K", b"V", b"X", b"9"])
_SIZES = st.integers(-(2**80), 2**80) | st.sampled_from([0, 1, -1, -512, -1024, 511, 2**31, 2**63 - 1, 2**63, 8**11])
_FIELDS = st.sampled_from(["size", "path", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major", "GNU.sparse.minor"])
_FIELDS |= st.sampled_from(["GNU.sparse.name", "GNU.sparse.numbytes", "GNU.sparse.offset", "hdrcharset", "mtime", "k"])
_VALUES = st.sampled_from(["abc", "1,2", "0", "1", "-1", "-1024", "9" * 30, "nan", "1e400", ""]) | st.text(max_size=5)


@st.composite
def _fields(draw: st.DrawFn) -> bytes:
    """The content of an extended header; its lengths are right at most times."""
    content = b""
    for name, value in draw(st.lists(st.tuples(_FIELDS, _VALUES), max_size=4)):
        text = f" {name}={value}\n".encode("utf-8", "surrogatepass")
        length = next(n for n in range(len(text), len(text) + 9) if n == len(text) + len(str(n)))
        content += b"%d" % draw(st.just(length) | st.integers(0, 10**20)) + text
    return content


@st.composite
def _member(draw: st.DrawFn) -> bytes:
    """A header with a right checksum, whatever is in it, and content."""
    content = draw(_fields() | st.just(_picture()) | st.binary(max_size=40))
    member = tarfile.TarInfo("a")
    member.type, member.size = draw(_KINDS), len(content)
    block = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    block[:100] = draw(_NAMES)[:100].ljust(100, b"\0")
    size = draw(st.none() | st.none() | _SIZES)
    if size is not None:
        block[124:136] = size.to_bytes(12, "big", signed=True)
        block[124] |= 0x80
    block[345:] = draw(st.just(bytes(167)) | st.binary(max_size=167)).ljust(167, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + content.ljust(-(-len(content) // 512) * 512, b"\0")


_BUILT = st.lists(_member(), max_size=6).map(lambda members: b"".join(members) + bytes(1024))
INPUTS = _BUILT | broken_bytes(_GOOD)


@cache
def _path() -> Path:
    return Path(mkdtemp(prefix="fuzz-archives-")) / "a.tar"


def check(content: bytes) -> None:
    """Reads all images of an archive."""
    _path().write_bytes(content)
    source = open_source(str(_path()))
    offered = 0
    try:
        for found in source.images():
            offered += 1
            found.name.encode()
            try:
                found.read()
            except Unfit as unfit:
                str(unfit)
            if offered > len(content) // 512:
                raise AssertionError(f"{offered} images in {len(content)} bytes")
        if source.count() != offered:
            raise AssertionError(f"{source.count()} images are announced and {offered} offered")
    except UserError as error:
        str(error)
