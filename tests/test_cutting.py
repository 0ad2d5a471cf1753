"""Pictures that are cut on the model's device: what the processor makes of them on a core, to the bit."""

import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

import families
import tiny
from parityalign.config.loading import LoadingSettings
from parityalign.core import Decoding, PictureRoom, Request, keeping_pictures
from parityalign.models import encoding, picture_store, pictures, resizing
from parityalign.models.backends._batches import patches
from parityalign.models.backends._hf_model import load_hf
from parityalign.models.cutting import Cuts, Same, Uncut, sent
from parityalign.models.eight_bits import PIXELS
from parityalign.models.encoding import Prompter
from parityalign.models.loading import open_model, open_processor
from parityalign.models.picture_processes import Channel
from parityalign.models.pictures import Pictures, image_bytes
from parityalign.models.stacking import stack
from parityalign.models.tracing import cuts_of
from parityalign.training.collator import AnswerCollator, Example

TILES = {"size": {"longest_edge": 4 * families.SIDE}, "max_image_size": {"longest_edge": families.SIDE}}
ENLARGING = {
    "Idefics3": Idefics3ImageProcessorPil(**TILES),
    "SmolVLM": SmolVLMImageProcessorPil(**TILES),
    "InternVL": GotOcr2ImageProcessorPil(size=families.SQUARE, crop_to_patches=True, min_patches=1, max_patches=12),
}
SIZES = ((120, 20), (20, 100), (7, 9), (60, 45), (100, 90))
"""Wide, tall, tiny, and larger than tiles of 32 pixels."""


def noise(size, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def folder_of(name, folder):
    family = next(each for each in families.FAMILIES if each.name == name)
    enlarging = ENLARGING.get(name, family.image_processor)
    return str(families.write(folder, replace(family, image_processor=enlarging)))


@pytest.fixture(scope="module", params=ENLARGING)
def folder(request, tmp_path_factory):
    return folder_of(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def idefics(tmp_path_factory):
    return folder_of("Idefics3", tmp_path_factory.mktemp("idefics"))


@pytest.fixture
def drawn(tmp_path):
    """Files of pictures that become larger."""
    paths = [str(tmp_path / f"{number}.png") for number in range(len(SIZES))]
    for seed, (path, size) in enumerate(zip(paths, SIZES, strict=True)):
        noise(size, seed).save(path)
    return paths


def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(pictures, "this_device", lambda: "cuda")


def equal(one, other):
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values.dtype == other[key].dtype and torch.equal(values, other[key]), key


sides = st.integers(1, 90)


@pytest.mark.parametrize("at_once", [2**26, 500])
@settings(max_examples=100, deadline=None)
@given(st.tuples(sides, sides), st.tuples(sides, sides), st.sampled_from([*resizing._FILTERS]), st.booleans())
def test_resizing_is_pillows_whatever_the_size_and_the_filter(at_once, before, after, resample, hard):
    picture = np.array(noise(before[::-1], sum(after)))
    picture = np.where(picture > 127, 255, 0).astype(np.uint8) if hard else picture
    expected = np.asarray(Image.fromarray(picture).resize(after[::-1], resample))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resizing, "_MOST_SUMS", at_once)
        made = resizing.resized(torch.from_numpy(picture).permute(2, 0, 1), after, resample)
    assert np.array_equal(made.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("allowed", ["tf32", "bf16", "ieee"])
def test_resizing_is_exact_whatever_precision_a_program_allows_and_leaves_it(allowed):
    products = torch.backends.mkldnn.matmul
    if not hasattr(products, "fp32_precision"):
        pytest.skip("this torch has no setting for a CPU")
    before = products.fp32_precision
    products.fp32_precision = allowed
    try:
        picture = np.array(noise((40, 30)))
        with torch.autocast("cpu", torch.bfloat16):
            made = resizing.resized(torch.from_numpy(picture).permute(2, 0, 1), (77, 66), Image.Resampling.LANCZOS)
        assert products.fp32_precision == allowed
    finally:
        products.fp32_precision = before
    expected = Image.fromarray(picture).resize((66, 77), Image.Resampling.LANCZOS)
    assert np.array_equal(made.permute(1, 2, 0).numpy(), np.asarray(expected))


def test_a_batch_of_uncut_pictures_is_that_of_the_processor(folder):
    prompter = Prompter(open_processor(folder))
    uncut, cut = ([each(noise(size), "what") for size in SIZES] for each in (prompter.uncut, prompter.encode))
    assert all(isinstance(row.image[PIXELS], Uncut) for row in uncut)
    for row, expected in zip(uncut, cut, strict=True):
        assert row.per_token == expected.per_token and row.size == expected.size
        assert patches(row, families.PATCH) == patches(expected, families.PATCH)
        assert image_bytes(row) < image_bytes(expected)
    several = [0, 1, 0, 2, 3, 4, 3]  # rows about one picture share its arrays
    for dtype in (torch.float32, torch.bfloat16):
        made, expected = (
            stack([rows[place] for place in several], pad_token=0, side="left", dtype=dtype) for rows in (uncut, cut)
        )
        equal(made, expected)
    mixed = [uncut[0], cut[1], uncut[1]]
    equal(*(stack(rows, pad_token=0, side="left") for rows in (mixed, [cut[0], cut[1], cut[1]])))


def test_how_a_picture_is_cut_is_found_out_once_a_size(idefics, monkeypatch):
    asked = []
    monkeypatch.setattr(encoding, "cuts_of", lambda *given: asked.append(given[1]) or cuts_of(*given))
    prompter = Prompter(open_processor(idefics))
    first, second = (prompter.uncut(noise((60, 45), seed), "what") for seed in range(2))
    assert asked == [(60, 45)] and first.image[PIXELS].cuts is second.image[PIXELS].cuts
    assert not np.array_equal(first.image[PIXELS].picture, second.image[PIXELS].picture)


def test_pictures_as_large_as_one_that_does_not_become_larger_are_not_followed(idefics, monkeypatch):
    asked = []
    monkeypatch.setattr(encoding, "cuts_of", lambda *given: asked.append(given[1]) or cuts_of(*given))
    prompter = Prompter(open_processor(idefics))
    assert [prompter.uncut(noise(size), "what") for size in ((400, 300), (410, 310), (500, 301))] == [None] * 3
    assert asked == [(400, 300)] and prompter.uncut(noise((60, 45)), "what")


def test_a_picture_travels_without_its_tiles_and_masks(idefics, monkeypatch):
    monkeypatch.setattr(encoding, "_LARGE", 2**10)
    row = Prompter(open_processor(idefics)).uncut(noise((100, 90)), "what")
    assert isinstance(row.image["pixel_attention_mask"], Same)
    buffers = []
    pickle.dumps(row.image, 5, buffer_callback=buffers.append)
    assert max(len(each.raw()) for each in buffers) == 3 * 100 * 90 >= image_bytes(row) - 8
    ends = socket.socketpair()
    sender, receiver = map(Channel, ends)
    with ThreadPoolExecutor(1) as waiting:
        received = waiting.submit(receiver.receive)
        sender.send(row)
        there = received.result()
    for channel in (sender, receiver):
        channel.close()
    equal(*(stack([each], pad_token=0, side="left") for each in (row, there)))


@pytest.mark.parametrize("name", ["LLaVA-NeXT", "Qwen2-VL"])
def test_a_processor_that_pads_or_makes_patches_cuts_by_itself(name, tmp_path):
    prompter = Prompter(open_processor(folder_of(name, tmp_path / "model")))
    noise((20, 11)).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    assert not prompter.cuts_elsewhere and prompter.uncut(noise((20, 11)), "what") is None
    seen = Pictures(prompter, 0, uncut=True).begin(path, "what").result()
    made, expected = seen.encoded, prompter.encode(noise((20, 11)), "what")
    assert made.per_token == expected.per_token and np.array_equal(made.image[PIXELS], expected.image[PIXELS])


class Inverting(Idefics3ImageProcessorPil):
    """Changes values in place, which leaves no trace."""

    def process_image(self, *args, **more):
        image = super().process_image(*args, **more)
        np.subtract(255, image, out=image)
        return image


class Mirroring(Idefics3ImageProcessorPil):
    def resize(self, *args, **more):
        return super().resize(*args, **more)[..., ::-1]


class Trimming(Idefics3ImageProcessorPil):
    """Cuts after the tiles were made."""

    def pad(self, image, *_, **__):
        return image[:, 2:, 2:], np.ones((30, 30), dtype=np.int64)


class Adding(Idefics3ImageProcessorPil):
    def resize(self, *args, **more):
        return super().resize(*args, **more) | 1


@pytest.mark.parametrize("other", [Inverting, Mirroring, Trimming, Adding])
def test_a_processor_that_does_more_than_cut_is_used_as_it_is(other, idefics):
    processor = open_processor(idefics)
    processor.image_processor.__class__ = other
    assert Prompter(processor).eight_bits
    assert not Prompter(processor).cuts_elsewhere


def test_pictures_that_do_not_become_larger_are_cut_and_kept_and_others_are_not(idefics, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_store, "SMALLEST", 0)
    noise((400, 300)).save(tmp_path / "large.png")
    room = PictureRoom(tmp_path / "kept", 10**8, pytest.fail)
    prompter = Prompter(open_processor(idefics))
    with keeping_pictures(room):
        reader = Pictures(prompter, 0, uncut=True)
        rows = [reader.begin(path, "what").result().encoded for path in (drawn[0], str(tmp_path / "large.png"))]
    assert [isinstance(row.image[PIXELS], Uncut) for row in rows] == [True, False]
    assert len([*room.folder.rglob("*.safetensors")]) == 1
    assert np.array_equal(rows[1].image[PIXELS], prompter.encode(noise((400, 300)), "what").image[PIXELS])


def test_on_a_cpu_nothing_is_left_uncut(idefics, drawn):
    seen = Pictures(Prompter(open_processor(idefics)), 0).begin(drawn[0], "what").result()
    assert isinstance(seen.encoded.image[PIXELS], np.ndarray)


def test_a_student_learns_the_same_from_uncut_pictures(idefics, drawn, monkeypatch):
    model, processor = open_model(idefics), open_processor(idefics)
    examples = [Example(path, f"what is the {path[-5]}", "red", path) for path in (*drawn, drawn[0])]

    def losses():
        batches = AnswerCollator(processor, [1], workers=1)
        batch = batches(examples)
        batches.close()
        return len(batches._images), float(tiny.ANSWER(model, batch).detach()), batch

    kept, loss, batch = losses()
    as_on_a_gpu(monkeypatch)
    kept_uncut, loss_uncut, batch_uncut = losses()
    assert (kept_uncut, loss_uncut) == (kept, loss)
    equal(batch_uncut, batch)


def test_a_model_says_the_same_of_uncut_pictures(folder, drawn, monkeypatch):
    loading = LoadingSettings(workers=0)
    asked = [Request(path, prompt, 0) for path in drawn[:3] for prompt in ("what is it", "is the square red ?")]

    def said():
        model = load_hf(folder, loading)
        return model.generate_scored(asked, Decoding(4, 0.0))

    expected = said()
    as_on_a_gpu(monkeypatch)
    counted = []
    of = Cuts.of
    monkeypatch.setattr(Cuts, "of", lambda cuts, pictures: counted.append(len(pictures)) or of(cuts, pictures))
    assert said() == expected
    assert counted


class Unpinned:
    """A tensor on a machine that pins no more memory."""

    def pin_memory(self):
        raise RuntimeError("CUDA error: out of memory")

    def to(self, device, *, non_blocking):
        return device


def test_what_cannot_be_pinned_is_sent_all_the_same():
    there = torch.device("cuda:1")
    assert sent(Unpinned(), there) == there
