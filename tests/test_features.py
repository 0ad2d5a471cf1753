"""Features of pictures that are kept are those that the model makes: it answers as if it looked again."""

import os

import pytest
import torch
from PIL import Image

import families
import tiny
from newer_families import LONG_FAMILIES
from parityalign.core.interfaces import Decoding, Request
from parityalign.models import features, pictures
from parityalign.models.backends import hf

GREEDY = Decoding(6)
DRAWN = Decoding(6, temperature=0.8)
FAMILIES = [*families.FAMILIES, *(pytest.param(family, marks=pytest.mark.long) for family in LONG_FAMILIES)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.drawn(tmp_path_factory.mktemp("images"), 5, sizes=((60, 60), (90, 40)))


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def folder(request, tmp_path):
    return str(families.write(tmp_path / "model", request.param))


def asked(images, *prompts):
    return [Request(image, prompt, seed) for seed, image in enumerate(images) for prompt in prompts]


@pytest.mark.slow
def test_a_later_question_is_answered_as_by_a_model_that_looks_again(folder, images, monkeypatch):
    model = hf.load(folder)
    rounds = [
        asked(images[:3], "a question"),
        asked(images, "another one", "what is it?"),
        asked(images[2:], "and now"),
    ]
    ways = (GREEDY, DRAWN, GREEDY)
    said = [model.generate_scored(requests, how) for requests, how in zip(rounds, ways, strict=True)]
    seen = model.observe([(request, "red") for request in rounds[1]])
    monkeypatch.setattr(features, "KEPT_BYTES", {})
    plain = hf.load(folder)
    for requests, how, found in zip(rounds, ways, said, strict=True):
        expected = plain.generate_scored(requests, how)
        assert [text for text, _ in found] == [text for text, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    for one, other in zip(seen, plain.observe([(request, "red") for request in rounds[1]]), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-3)


@pytest.fixture
def opened(monkeypatch):
    """The pictures that are opened."""
    found, read = [], pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: found.append(path) or read(path))
    return found


def test_a_picture_that_comes_again_is_neither_opened_nor_looked_at(tmp_path, images, opened):
    model, looked = hf.load(str(tiny.fast_vlm(tmp_path / "model"))), []
    model._model.model.vision_tower.register_forward_hook(lambda *told: looked.append(told[2][0].shape[0]))
    model.generate(asked(images, "a question"), GREEDY)
    assert sorted(opened) == sorted(images) and sum(looked) == len(images)
    model.generate(asked(images, "another"), GREEDY)
    assert len(opened) == len(images) and sum(looked) == len(images)


@pytest.mark.parametrize("room", [1, 10])
def test_a_file_that_was_changed_is_looked_at_again(tmp_path, images, monkeypatch, room):
    folder, path = str(tiny.fast_vlm(tmp_path / "model")), str(tmp_path / "picture.png")
    monkeypatch.setattr(features, "KEPT_BYTES", {"cpu": room * size_of_one(folder, images) + 1})
    model = hf.load(folder)
    found = []
    for colour in ("white", "black"):
        Image.new("RGB", (40, 40), colour).save(path)
        os.utime(path, ns=(0, len(found)))
        found.append([score for _, score in model.generate_scored(asked([path, images[0]], "a question"), GREEDY)])
    assert abs(found[0][0] - found[1][0]) > 1e-3
    assert found[0][1] == found[1][1]
    assert model.generate_scored(asked([path], "a question"), GREEDY)[0][1] == pytest.approx(found[1][0], abs=1e-4)


def test_no_more_is_kept_than_there_is_room_for(tmp_path, images, opened, monkeypatch):
    folder = str(tiny.fast_vlm(tmp_path / "model"))
    expected = hf.load(folder).generate(asked(images, "a question"), GREEDY)
    monkeypatch.setattr(features, "KEPT_BYTES", {"cpu": 2 * size_of_one(folder, images) + 1})
    model = hf.load(folder)
    opened.clear()
    for _ in range(3):
        assert model.generate(asked(images, "a question"), GREEDY) == expected
    assert len(model._features._kept) == 2
    assert len(opened) == len(images) + 2 * (len(images) - 2)


def size_of_one(folder, images):
    """Bytes that are kept of a picture."""
    model = hf.load(folder)
    model.generate(asked(images, "a question"), GREEDY)
    (size,) = {kept.nbytes for kept in model._features._kept.values()}
    return size


def test_pixels_of_a_kept_picture_can_still_be_had(tmp_path, images):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model")))
    request = asked(images[:1], "a question")
    (before,) = (row.image["pixel_values"] for row in model._reader.read(request))
    model.generate(request, GREEDY)
    (after,) = (row.image["pixel_values"] for row in model._reader.read(request))
    assert after.nbytes == 0 and after.shape == before.shape
    assert torch.equal(after.on(torch.device("cpu")), torch.from_numpy(before))


def test_a_picture_whose_questions_fall_into_several_batches_is_kept(tmp_path, images, opened, monkeypatch):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model")))
    monkeypatch.setattr(model._budget, "first", lambda rows, size: min(2, len(rows)))
    questions = asked(images, "a question", "another", "and a third")
    expected = [model.generate(questions, GREEDY) for _ in range(3)]
    assert expected[0] == expected[1] == expected[2]
    assert len(model._features._kept) == len(opened) == len(images)


def test_what_a_batch_that_fails_has_made_is_kept_for_its_halves(tmp_path, images, monkeypatch):
    model = hf.load(str(tiny.fast_vlm(tmp_path / "model")))
    plain, failed = model._model.generate, []

    def fails_once(**inputs):
        if not failed:
            failed.append(True)
            raise MemoryError
        return plain(**inputs)

    monkeypatch.setattr(model._model, "generate", fails_once)
    model.generate(asked(images, "a question"), GREEDY)
    assert failed and len(model._features._kept) == len(images)
