"""A picture that was saved again is found; one that differs in one bar or one digit is another picture."""

from io import BytesIO
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from parityalign.data.images import open_picture
from parityalign.demo.worlds import WORLDS
from parityalign.stages._likeness import Look, look_at, same_picture
from parityalign.stages._seen import Names, SeenImages

FIRST = 1_500_000_000
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def pictures(world: str, count: int) -> list[Image.Image]:
    return [WORLDS[world](Random(FIRST + number)).image for number in range(count)]


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def found(seen: SeenImages, content: bytes) -> str | None:
    image = open_picture(content).image
    match = seen.match(look_at(content, image), lambda: image, near=True)
    return match.path if match else None


def remembered(folder, images) -> SeenImages:
    seen = SeenImages()
    for number, image in enumerate(images):
        content = saved(image)
        assert found(seen, content) is None, f"picture {number} was taken for another"
        (folder / f"{number}.png").write_bytes(content)
        seen.add(look_at(content, image), str(folder / f"{number}.png"))
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_of_distinct_pictures_none_is_taken_for_another_and_all_saved_again_are_found(tmp_path, world):
    images = pictures(world, 60)
    seen = remembered(tmp_path, images)
    resized = []
    for number, image in enumerate(images[:15]):
        here = str(tmp_path / f"{number}.png")
        assert all(found(seen, saved(image, "JPEG", quality=quality)) == here for quality in (30, 60, 95))
        for place, factor in enumerate((0.4, 0.7, 1.3, 2.0)):
            size = (round(image.width * factor), round(image.height * factor))
            again = image.resize(size, FILTERS[(number + place) % 3])
            resized.append(found(seen, saved(again, "JPEG", quality=80)) == here)
    assert sum(resized) >= 0.95 * len(resized)


def chart(heights, *, title="Sales") -> Image.Image:
    image = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40, 2), title, fill="black")
    for place, height in enumerate(heights):
        draw.rectangle((12 + 28 * place, 118 - height, 30 + 28 * place, 118), fill=(36, 72, 200))
    return image


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(10, 80), min_size=4, max_size=4), st.integers(0, 3))
def test_one_bar_that_is_one_level_higher_makes_another_chart(heights, place):
    higher = [height + 8 * (number == place) for number, height in enumerate(heights)]
    one, other = chart(heights), chart(higher)
    assert not same_picture(one, other)
    assert not same_picture(other, one.resize((64, 64)))


def test_one_other_digit_makes_another_sign():
    signs = [Image.new("RGB", (128, 96), (26, 138, 54)) for _ in range(2)]
    for sign, text in zip(signs, ("Route 35", "Route 36"), strict=True):
        ImageDraw.Draw(sign).text((10, 35), text, fill="white", font_size=22)
    assert not same_picture(*signs)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.sampled_from(sorted(WORLDS)), st.floats(0.4, 2.0), st.integers(30, 95))
def test_likeness_does_not_depend_on_who_comes_first(number, world, factor, quality):
    one = WORLDS[world](Random(FIRST + number)).image
    again = one.resize((round(one.width * factor), round(one.height * factor)), Image.Resampling.BICUBIC)
    other = open_picture(saved(again, "JPEG", quality=quality)).image
    assert same_picture(one, one)
    assert same_picture(one, other) == same_picture(other, one)


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_grain_that_a_jpeg_drops_makes_no_other_picture(quality):
    chance = Random(quality)
    grain = Image.frombytes(
        "L", (400, 300), bytes(max(0, min(255, round(chance.gauss(128, 20)))) for _ in range(120_000))
    )
    photo = Image.merge("RGB", (grain, grain, grain))
    assert same_picture(photo, open_picture(saved(photo, "JPEG", quality=quality)).image)


def test_another_shape_is_another_picture():
    image = chart([10, 20, 30, 40])
    assert not same_picture(image, image.resize((128, 100)))


def test_a_look_comes_back_from_what_is_kept_of_it():
    look = look_at(b"file", chart([10, 20, 30, 40]))
    assert Look.kept(look.image_id, look.pixels, look.likeness) == look


def test_a_match_names_the_first_and_prefers_equal_bytes(tmp_path):
    image = chart([10, 60, 30, 40])
    near, pixels = saved(image, "JPEG", quality=90), saved(image, "BMP")
    seen = SeenImages()
    for name, content in (("near.jpg", near), ("pixels.bmp", pixels), ("same.png", saved(image))):
        (tmp_path / name).write_bytes(content)
        seen.add(look_at(content, open_picture(content).image), str(tmp_path / name))
    assert found(seen, saved(image)) == str(tmp_path / "same.png")
    assert found(seen, saved(image, "TIFF")) == str(tmp_path / "pixels.bmp")
    assert found(seen, saved(image, "JPEG", quality=50)) == str(tmp_path / "near.jpg")


def test_a_picture_that_has_gone_equals_nothing(tmp_path):
    image, seen = chart([10, 60, 30, 40]), SeenImages()
    seen.add(look_at(b"", image), str(tmp_path / "gone.png"))
    assert found(seen, saved(image, "JPEG", quality=60)) is None


@settings(deadline=None)
@given(st.lists(st.sampled_from("abc")), st.lists(st.sampled_from("abcd")))
def test_names_are_taken_as_often_as_they_were_given(given_names, asked):
    names, left = Names(given_names), list(given_names)
    for name in asked:
        there = name in left
        assert names.take(name) == there
        if there:
            left.remove(name)
