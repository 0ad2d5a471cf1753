"""Tar archives: the images in one, or words; every member is offered, nothing is read twice."""

import io
import tarfile
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from fuzz_targets._bytes import broken_bytes
from hypothesis import strategies as st
from PIL import Image

from parityalign.core import UserError
from parityalign.data import Unfit, open_source


def _archive(form: int, name: str) -> bytes:
    file, picture = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(picture, "PNG")
    with tarfile.open(fileobj=file, mode="w", format=form, pax_headers={"a": "b"}) as archive:
        for number in range(3):
            member = tarfile.TarInfo(f"{name}{number}.png")
            member.size = len(picture.getvalue())
            archive.addfile(member, io.BytesIO(picture.getvalue()))
    return file.getvalue()


_GOOD = [_archive(form, name) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT) for name in "aé"]
_GOOD += [_archive(form, "long/" * 60) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
_PIECES = [b"x", b"g", b"L", b"K", b"S", b"V", b"5", b"2", b"12 size=-1024\n", b"17 GNU.sparse.map=1,2\n", b"9" * 12]
_PIECES += [b"20 GNU.sparse.major=1\n", b"20 GNU.sparse.minor=0\n", b"22 GNU.sparse.size=abc\n", b"0" * 11 + b"\0"]


@st.composite
def _mended(draw: st.DrawFn) -> bytes:
    """A broken archive, at times with the checksums that its headers should have."""
    content = bytearray(draw(broken_bytes(_GOOD, _PIECES)))
    if draw(st.booleans()):
        for start in range(0, len(content) - 511, 512):
            if content[start + 257 : start + 262] == b"ustar":
                content[start + 148 : start + 156] = b" " * 8
                content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    return bytes(content)


INPUTS = _mended()


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
        if source.count() != offered:
            raise AssertionError(f"{source.count()} images are announced and {offered} offered")
    except UserError as error:
        str(error)
    if offered > len(content) // 512:
        raise AssertionError(f"{offered} images in {len(content)} bytes")
