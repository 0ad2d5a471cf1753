"""Families that transformers knows and we do not: told, tried, and refused by name where they mix pictures up."""

import json
from functools import wraps
from importlib.util import find_spec

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

import families as known
import spellings
from families import Parts, write
from newer_families import NEWER_FAMILIES
from parityalign.config import LoadingSettings
from parityalign.config.schema import RunConfig
from parityalign.core.errors import UserError
from parityalign.core.interfaces import Decoding, Request
from parityalign.models import families
from parityalign.models.backends import hf
from parityalign.models.checking import check_model
from parityalign.models.families import CHECKED, unchecked_family
from parityalign.models.loading import open_processor
from parityalign.pipeline import preflight

DTYPES = ("float32", "bfloat16")
NEED_TORCHVISION = {"lfm2_vl", "molmo2", "mistral3"}


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    family = next(each for each in known.FAMILIES if each.name == "LLaVA")
    return str(write(tmp_path_factory.mktemp("families") / "llava", family))


@pytest.fixture
def unchecked(monkeypatch):
    """LLaVA as if nobody had checked it."""
    monkeypatch.setattr(families, "CHECKED", CHECKED - {"llava"})


class Listening:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, step: str, done: int, total: int) -> None:
        """Nobody watches."""

    def say(self, text: str) -> None:
        self.said.append(text)

    def confirm(self, question: str) -> bool:
        return True


def mixing(change):
    """A LLaVA in which something is done to the features of a batch's pictures."""
    read = transformers.LlavaModel.get_image_features

    @wraps(read)
    def get_image_features(model, *args, **kwargs):
        found = read(model, *args, **kwargs)
        found.pooler_output = change(found.pooler_output)
        return found

    return get_image_features


@pytest.mark.slow
def test_the_checked_families_are_those_of_the_conformance_tests():
    every = [*known.FAMILIES, *NEWER_FAMILIES]
    built = {family.model(Parts(family.tokenizer())).config.model_type for family in every}
    assert built == CHECKED - NEED_TORCHVISION


def test_a_checked_family_is_not_told(llava):
    assert unchecked_family(llava) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_unchecked_family_is_tried_and_works(llava, unchecked, tmp_path, dtype):
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    model = hf.load(llava, LoadingSettings(dtype=dtype))
    assert model.generate([Request(str(tmp_path / "a.png"), "what")], Decoding(3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda features: features[::-1] if isinstance(features, list | tuple) else features.flip(0), "mixes up"),
        (lambda features: [features[0]] * len(features), "mixes up"),
        (lambda features: features[:1], "cannot be asked in batches"),
    ],
    ids=["other order", "the first for all", "only the first"],
)
def test_an_unchecked_family_that_mixes_up_pictures_is_refused_by_name(
    llava, unchecked, monkeypatch, change, told, dtype
):
    monkeypatch.setattr(transformers.LlavaModel, "get_image_features", mixing(change))
    with pytest.raises(UserError) as refused:
        hf.load(llava, LoadingSettings(dtype=dtype))
    assert told in str(refused.value) and f"hf:{llava}" in str(refused.value) and "family llava" in str(refused.value)


def faint(features):
    """Features of which pictures change so little that it is less than bfloat16 is allowed in rounding."""
    return [each * 3e-4 + torch.linspace(-1, 1, each.shape[-1], dtype=each.dtype) for each in features]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pictures_that_are_exchanged_are_found_where_rounding_is_larger_than_what_they_change(
    llava, unchecked, monkeypatch, dtype
):
    with monkeypatch.context() as patched:
        patched.setattr(transformers.LlavaModel, "get_image_features", mixing(faint))
        hf.load(llava, LoadingSettings(dtype=dtype))
    monkeypatch.setattr(transformers.LlavaModel, "get_image_features", mixing(lambda found: faint(found)[::-1]))
    with pytest.raises(UserError, match="mixes up"):
        hf.load(llava, LoadingSettings(dtype=dtype))


def test_a_run_that_begins_tells_once_what_is_unchecked(llava, unchecked, tmp_path):
    (tmp_path / "pool").mkdir()
    tasks = {"textvqa": {"images": (str(tmp_path / "pool"),)}}
    spec = f"hf:{llava}"
    config = RunConfig.model_validate({"run": tmp_path / "run", "teacher": spec, "student": spec, "tasks": tasks})
    heard = Listening()
    with preflight.open_run_folder(config, heard) as run:
        run.folder.artifact("pairs", inputs={}, settings={})
    (line, *rest) = heard.said
    assert "of the family llava" in line and "end of an answer" in line and "docs/models.md" in line
    assert rest in ([], [line])


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize(
    ("kind", "processor", "pictures"),
    [
        ("lfm2_vl", "Lfm2VlProcessor", "Lfm2VlImageProcessor"),
        ("mistral3", "PixtralProcessor", "PixtralImageProcessor"),
        ("molmo2", "Molmo2Processor", "Molmo2ImageProcessor"),
    ],
)
def test_a_family_that_needs_torchvision_says_so_in_a_line(tmp_path, kind, processor, pictures):
    tokenizer = spellings.qwen()
    tokenizer.chat_template = spellings.QWEN2
    tokenizer.save_pretrained(tmp_path)
    transformers.CONFIG_MAPPING[kind]().save_pretrained(tmp_path)
    named = {"processor_class": processor}
    (tmp_path / "processor_config.json").write_text(json.dumps(named))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(named | {"image_processor_type": pictures}))
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    for call in (check_model, open_processor):
        with pytest.raises(UserError) as refused:
            call(str(tmp_path))
        assert f"{tmp_path} needs torchvision" in str(refused.value) and "pip install torchvision" in str(refused.value)
