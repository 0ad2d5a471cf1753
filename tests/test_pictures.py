"""One place opens pictures: whole, upright, in 8-bit RGB, whatever the file is called."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parityalign.data.images import Unfit, open_picture, read_picture


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
