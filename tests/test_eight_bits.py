"""Pixels in 8 bits: what is made of them on the device is what each family's processor makes, to the bit."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import tiny
from families import FAMILIES, write
from newer_families import NEWER_FAMILIES
from parityalign.core import PictureRoom, keeping_pictures
from parityalign.models import eight_bits, picture_store
from parityalign.models.eight_bits import PIXELS
from parityalign.models.encoding import Prompter
from parityalign.models.loading import open_processor
from parityalign.models.pictures import Pictures
from parityalign.models.stacking import stack

SIZES = ((61, 83), (300, 40), (33, 210), (7, 9), (640, 480))


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def by_transformers(processor, prompter: Prompter, picture: Image.Image) -> dict[str, torch.Tensor]:
    return processor(images=[picture], text=[prompter.chat("what")], return_tensors="pt")


def refuses_8_bits(processor):
    """The processor, with values in each picture that no table of its settings gives."""

    class Contrary(type(processor.image_processor)):
        def preprocess(self, *args, **kwargs):
            features = super().preprocess(*args, **kwargs)
            features[PIXELS] = features[PIXELS] + features[PIXELS].mean()
            return features

    processor.image_processor.__class__ = Contrary
    return processor


@pytest.mark.parametrize("family", [*FAMILIES, *NEWER_FAMILIES], ids=lambda family: family.name)
def test_pixels_of_every_family_are_kept_in_8_bits_and_are_transformers_own(family, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_store, "SMALLEST", 0)
    processor = open_processor(str(write(tmp_path, family, speaks=False)))
    prompter = Prompter(processor)
    for seed, size in enumerate(SIZES):
        picture = noise(size, seed)
        row, expected = prompter.encode(picture, "what"), by_transformers(processor, prompter, picture)
        assert row.image[PIXELS].dtype == np.uint8
        made = stack([row], pad_token=0, side="left")
        for key in row.image:
            assert made[key].dtype == expected[key].dtype
            assert torch.equal(made[key], expected[key])
    found_again(prompter, processor, picture, tmp_path)


def found_again(prompter: Prompter, processor, picture: Image.Image, folder: Path) -> None:
    """A picture that was kept in a file is found by the next model, whatever its prompt."""
    picture.resize((900, 700)).save(folder / "a.png")
    room = PictureRoom(folder / "kept", 10**9, print)
    with keeping_pictures(room):
        for prompt in ("what", "is the square red?"):
            pictures = Pictures(Prompter(processor), 0)
            seen = pictures.begin(str(folder / "a.png"), prompt).result()
            row, plain = (
                pictures.row(str(folder / "a.png"), seen, prompt),
                prompter.encode(Image.open(folder / "a.png"), prompt),
            )
            assert row.per_token == plain.per_token
            assert all(np.array_equal(row.image[key], plain.image[key]) for key in plain.image)
    assert len(list(room.folder.rglob("*.safetensors"))) == (type(processor).__name__ != "PaliGemmaProcessor")


def test_pixels_that_no_table_gives_stay_as_the_processor_makes_them():
    processor = refuses_8_bits(tiny.processor())
    prompter, picture = Prompter(processor), noise((50, 40), 1)
    row = prompter.encode(picture, "what")
    assert row.levels is None
    assert torch.equal(
        stack([row], pad_token=0, side="left")[PIXELS], by_transformers(processor, prompter, picture)[PIXELS]
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(8, 90), st.integers(8, 90)), min_size=1, max_size=4), st.booleans())
def test_pictures_of_other_sizes_in_the_batch_change_no_pixel(sizes, halved):
    dtype = torch.bfloat16 if halved else torch.float32
    prompter = Prompter(tiny.processor())
    rows = [prompter.encode(noise(size, seed), "what") for seed, size in enumerate(sizes)]
    together = stack(rows, pad_token=0, side="left", dtype=dtype)[PIXELS]
    alone = [stack([row], pad_token=0, side="left")[PIXELS].to(dtype) for row in rows]
    assert torch.equal(together, torch.cat(alone))


def test_threads_that_want_to_know_at_once_try_a_processor_once(tmp_path, monkeypatch):
    processor = open_processor(str(tiny.llava(tmp_path / "model")))
    tried, own = [], eight_bits._levels_tried
    monkeypatch.setattr(eight_bits, "_known", {})
    monkeypatch.setattr(eight_bits, "_levels_tried", lambda *how: tried.append(time.sleep(0.1)) or own(*how))
    with ThreadPoolExecutor(8) as threads:
        found = [*threads.map(lambda each: each.eight_bits, [Prompter(processor) for _ in range(8)])]
    assert len(tried) == 1 and all((each.levels == found[0].levels).all() for each in found)
