"""Pictures: every file is one, in RGB and of the size that its header says, or has a reason why it is none."""

import io

from PIL import Image

from fuzz_targets._bytes import broken_bytes
from parityalign.data import Unfit, open_picture
from parityalign.data.images import FORMATS


def _saved(kind: str, mode: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (24, 16), 7 if len(mode) == 1 or ";" in mode else None).save(file, kind, **options)
    return file.getvalue()


_EXIF = Image.Exif()
_EXIF[0x112] = 6
_TWO = {"save_all": True, "append_images": [Image.new("RGB", (24, 16), "red")]}
_GOOD = [_saved(kind, "RGB") for kind in FORMATS]
_GOOD += [_saved(kind, "RGB", **_TWO) for kind in ("GIF", "PNG", "TIFF", "WEBP")]
_GOOD += [_saved("PNG", mode) for mode in ("P", "LA", "RGBA", "I;16", "1")]
_GOOD += [_saved("TIFF", mode, compression=kind) for mode in ("F", "I;16", "L") for kind in ("raw", "tiff_deflate")]
_GOOD += [_saved("JPEG", mode, progressive=True, exif=_EXIF) for mode in ("RGB", "CMYK", "L")]
_PIECES = [
    b"\xff\xda",
    b"\xff\xd9",
    b"IDAT",
    b"IEND",
    b"acTL",
    b"tRNS",
    b"iCCP",
    b"eXIf",
    b"VP8X",
    b"ANMF",
    b"\x21\xf9",
]

INPUTS = broken_bytes(_GOOD, _PIECES)


def check(content: bytes) -> None:
    """Decodes one."""
    try:
        picture = open_picture(content)
    except Unfit as unfit:
        str(unfit)
        return
    if picture.image.mode != "RGB" or min(picture.image.size) < 1 or picture.format not in FORMATS:
        raise AssertionError(f"{picture} is not what models are given")
    picture.image.tobytes()
