"""One place opens pictures: whole, upright, in 8-bit RGB, whatever the file is called, and within limits."""

import re
import subprocess
import sys
import time
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parityalign.data import images
from parityalign.data.images import MAX_SCANS, Unfit, bands, open_picture, read_picture
from parityalign.stages._likeness import look_at


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixel(content: bytes, place=(0, 0)) -> tuple[int, ...]:
    image = open_picture(content).image
    assert image.mode == "RGB"
    return image.getpixel(place)


@settings(deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=4, max_size=4), st.sampled_from(["PNG", "TIFF"]))
def test_sixteen_bits_are_scaled_and_not_clipped(values, kind):
    grey = np.array([65535, *values[1:]], dtype=np.uint16).reshape(2, 2)
    seen = np.asarray(open_picture(saved(Image.fromarray(grey), kind)).image)[..., 0]
    assert np.abs(seen - grey / 257).max() <= 0.5


@settings(deadline=None)
@given(st.sampled_from([8, 10, 12, 14, 16]), st.data(), st.sampled_from(["PNG", "TIFF"]))
def test_the_depth_of_a_camera_in_a_file_of_sixteen_bits_is_the_full_range(bits, data, kind):
    most = data.draw(st.integers(4 ** (bits // 2 - 1) if bits > 8 else 0, 2**bits - 1))
    grey = np.array([most, *data.draw(st.lists(st.integers(0, most), min_size=3, max_size=3))], dtype=np.uint16)
    seen = np.asarray(open_picture(saved(Image.fromarray(grey.reshape(2, 2)), kind)).image)[..., 0]
    assert np.abs(seen.ravel() - grey / (2**bits - 1) * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("mode", "value", "seen"),
    [("I", 65535, 255), ("I", 70000, 255), ("I", -5, 0), ("F", 0.5, 128), ("F", 128.0, 128), ("F", float("nan"), 0)],
)
def test_deep_tiff_files_keep_their_brightness(mode, value, seen):
    assert pixel(saved(Image.new(mode, (8, 8), value), "TIFF")) == (seen,) * 3


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_palette_with_alpha_lies_on_white():
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert pixel(saved(palette, transparency=bytes([255, 0]))) == (255, 255, 255)
    assert pixel(saved(palette, transparency=bytes([0, 255]))) == (255, 0, 0)


def test_cmyk_becomes_rgb():
    red, green, blue = pixel(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert red > 240 and green < 15 and blue < 15


def test_of_several_frames_the_first_is_seen_and_that_there_are_more_is_told():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for kind in ("GIF", "TIFF", "PNG"):
        picture = open_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert (picture.several, picture.image.getpixel((0, 0))) == (True, (255, 0, 0))


def test_the_second_picture_that_phones_put_behind_a_jpeg_makes_no_film_of_it():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    picture = open_picture(saved(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert (picture.format, picture.several) == ("JPEG", False)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_broken_exif_says_nothing_against_the_pixels():
    content = saved(Image.new("RGB", (20, 10), "red"), "JPEG", exif=b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff")
    assert open_picture(content).image.size == (20, 10)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_told_from_its_header(monkeypatch):
    content = saved(Image.new("L", (50, 50)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(Unfit, match="2500 pixels"):
        open_picture(content)


def test_what_is_no_file_is_unreadable(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.png", tmp_path / "a\0b.png", tmp_path / ("x" * 5000)):
        with pytest.raises(Unfit, match="unreadable"):
            read_picture(path)


def of_scans(scans: int, size=(16, 16)) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    content = saved(Image.new("L", size, 128), "JPEG", progressive=True, quality=50)
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * (scans - content.count(b"\xff\xda")) + content[-2:]


def test_a_jpeg_has_so_many_scans_and_is_refused_before_it_is_decoded():
    assert open_picture(of_scans(MAX_SCANS)).image.size == (16, 16)
    start = time.monotonic()
    with pytest.raises(Unfit, match="too slow .*more than 100 scans"):
        open_picture(of_scans(15_000, (6000, 6000)))
    assert time.monotonic() - start < 5


def test_what_phones_append_to_a_jpeg_is_not_taken_for_scans():
    video = b"ftyp" + b"\xff\xda\x00\x08" * (2 * MAX_SCANS)
    assert open_picture(saved(Image.new("RGB", (16, 16), "red"), "JPEG") + video).image.size == (16, 16)
    thumbnail = b"Exif\x00\x00" + b"\xff\xda" * (2 * MAX_SCANS)
    assert open_picture(saved(Image.new("RGB", (16, 16), "red"), "JPEG", exif=thumbnail)).image.size == (16, 16)


def test_a_jpeg_or_png_of_countless_empty_parts_is_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_READS", 5_000)
    whole = saved(Image.new("RGB", (16, 16), "red"), "JPEG")
    with pytest.raises(Unfit, match="too slow .* parts"):
        open_picture(whole[:2] + b"\xff\xfe\x00\x02" * 5_001 + whole[2:])
    whole = saved(Image.new("RGB", (16, 16), "red"))
    empty = b"\0\0\0\0prIv" + zlib.crc32(b"prIv").to_bytes(4, "big")
    with pytest.raises(Unfit, match="too slow .* parts"):
        open_picture(whole[:33] + empty * 5_001 + whole[33:])


def test_decoding_is_given_up_after_a_while(monkeypatch):
    monkeypatch.setattr(images, "MAX_SECONDS", -1)
    with pytest.raises(Unfit, match="too slow .* seconds"):
        open_picture(saved(Image.new("RGB", (16, 16), "red")))


def test_a_decoder_that_waits_for_the_machine_is_not_given_up(monkeypatch):
    monkeypatch.setattr(images, "MAX_SECONDS", 0.05)
    content = images._Bounded(b"content")
    time.sleep(0.1)
    assert content.read() == b"content"


def test_of_a_thousand_frames_only_the_first_two_are_looked_at(monkeypatch):
    frames = [Image.new("RGB", (8, 8), (number % 256, number // 256, 9)) for number in range(1000)]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    monkeypatch.setattr(images, "MAX_READS", 300)
    assert open_picture(content).several


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC; convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0heic", "it is HEIC"),
        (b"\0\0\0\x1cftypavif", "it is AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "it is JPEG 2000"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "it is JPEG XL"),
        (b"\0\0\0\x20ftypisom", "it is a video"),
    ],
)
def test_a_picture_in_a_format_that_is_not_read_is_called_by_its_name(beginning, said):
    with pytest.raises(Unfit, match="unsupported format") as caught:
        open_picture(beginning + bytes(50))
    assert said in str(caught.value)


def test_a_pointer_of_git_lfs_says_how_to_get_the_picture():
    with pytest.raises(Unfit, match=r"not an image \(it is a pointer of Git LFS; run: git lfs pull"):
        open_picture(b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 7\n")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 60), st.sampled_from(["RGBA", "LA", "I;16", "F", "L"]))
def test_what_is_done_in_bands_gives_the_pixels_of_the_whole(width, height, pixels, mode):
    values = np.random.default_rng(width * height).integers(0, 256, (height, width, 4))
    image = {
        "RGBA": lambda: Image.fromarray(values.astype(np.uint8)),
        "LA": lambda: Image.fromarray(values[..., :2].astype(np.uint8)),
        "I;16": lambda: Image.fromarray((values[..., 0] * 257).astype(np.uint16)),
        "F": lambda: Image.fromarray(values[..., 0].astype(np.float32)),
        "L": lambda: Image.fromarray(values[..., 0].astype(np.uint8)),
    }[mode]()
    content = saved(image, "TIFF")
    whole = open_picture(content).image
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_BAND", pixels)
        banded = open_picture(content).image
        assert banded.tobytes() == whole.tobytes() == b"".join(band.tobytes() for band in bands(whole))
        assert look_at(content, banded) == look_at(content, whole)


@pytest.mark.long
@pytest.mark.parametrize(
    "made",
    [
        'Image.new("RGBA", size, (9, 9, 9, 99)).save(file, "PNG", compress_level=1)',
        'Image.new("F", size, 0.5).save(file, "TIFF", compression="tiff_deflate")',
        'Image.new("RGB", size, "red").save(file, "JPEG", progressive=True, subsampling=0)',
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_one_of_the_largest_pictures_takes_less_than_a_gigabyte(tmp_path, made):
    program = "import sys; from PIL import Image; size = (9400, 9400); file = open(sys.argv[1], 'wb'); " + made
    subprocess.run([sys.executable, "-c", program, tmp_path / "a"], check=True)
    program = (
        "import sys; from pathlib import Path; from parityalign.data import open_picture; "
        "open_picture(Path(sys.argv[1]).read_bytes()); "
        "print(Path('/proc/self/status').read_text())"
    )
    said = subprocess.check_output([sys.executable, "-c", program, tmp_path / "a"], text=True)
    # Not `ru_maxrss`, which counts the process that began this one too.
    assert int(re.search(r"VmHWM:\s+(\d+) kB", said)[1]) < 2**20
