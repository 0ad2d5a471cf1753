"""A model's size and its tokens per picture, from its configuration; no weights are loaded or downloaded.

Parameters are counted on a model that is built without storage (PyTorch's meta device), so the count is exact for
every family that transformers has.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache
from PIL.Image import Image, new
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, PreTrainedConfig

from parityalign.config import LoadingSettings, is_path
from parityalign.core import UserError
from parityalign.models import (
    BACKEND,
    CONNECTOR,
    PIXELS,
    VISION,
    Encoded,
    Prompter,
    Uncut,
    cached_numbers,
    cuts_by,
    hub_answers,
    image_token,
    limit_pixels,
    open_config,
    open_processor,
    part_of,
    patch_side,
    quieten,
    usual_limit,
)
from parityalign.planning.published import architecture, models
from parityalign.planning.sizes import Preparation, Prompts, PromptSize, PromptSizes, Size, Stack, mean_of
from parityalign.training import facts_of

CHARACTERS_PER_TOKEN = 4
"""Characters per token of English text, without a tokenizer."""
CHAT_TOKENS = 16
"""Tokens that a chat template adds to a prompt, without a template."""
_ESTIMATE = (
    f"the picture's tokens from the image processor and the text's from its length ({CHARACTERS_PER_TOKEN} characters "
    f"per token, {CHAT_TOKENS} tokens for the chat)"
)
_PROBLEMS = (ValueError, LookupError, RuntimeError, ImportError, AttributeError, TypeError)


class Place(NamedTuple):
    """Where the configuration of a model is read."""

    location: str
    """A folder or a hub id."""
    origin: str
    """The same as text."""
    published: bool = False
    """Whether it is only a published architecture, with no tokenizer."""
    commit: str | None = None
    """The commit in the local cache, to be used without asking the hub for a newer one."""


def place_of(location: str, loading: LoadingSettings, *, offline: bool = False) -> Place:
    """Finds a model's configuration: in its folder, on the hub, or in the table of published models, in this order.

    Args:
        location: Hugging Face folder or hub id.
        loading: Which revision.
        offline: Whether to avoid the hub.

    Raises:
        UserError: It is not found.
    """
    if is_path(location):
        if Path(location).expanduser().is_dir():
            return Place(location, "its folder")
        why = "there is no such folder"
    else:
        cached = try_to_load_from_cache(location, "config.json", revision=loading.pinned)
        if isinstance(cached, str):
            commit = Path(cached).parent.name if offline else None
            return Place(location, "the hub's local cache", commit=commit)
        if not offline and hub_answers():
            return Place(location, "the hub")
        why = "the hub was not asked" if offline else "the hub cannot be reached"
    published = architecture(location)
    if published:
        return Place(str(published), f"the package's table of published models ({why})", published=True)
    known = ", ".join(f"{model.parent.name}/{model.name}" for model in models())
    raise UserError(
        f"the configuration of {location} is needed, but {why}, and it is not in the table of published models.\n"
        f"Connect, or download it and name its folder. In the table: {known}."
    )


def size_of(place: Place, loading: LoadingSettings) -> Size:
    """The size of a model.

    Raises:
        UserError: There is no configuration of a vision-language model.
    """
    config, model = _without_storage(place, loading)
    text = config.get_text_config()
    whole: Any = model
    head = whole.get_output_embeddings()
    looked_up = _tables(whole.get_decoder())
    tables = {id(table.weight): table.weight.numel() for table in (*looked_up, whole.get_input_embeddings(), head)}
    language = _count(whole.get_decoder()) - sum(map(_count, looked_up))
    everything = _count(model)
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    by_part = _by_part(model, linear)
    tower = getattr(config, "vision_config", None)
    return Size(
        parameters=everything,
        language=Stack(language, text.num_hidden_layers, text.hidden_size, _wide(text)),
        vision=Stack(
            everything - language - sum(tables.values()) - _for_sounds(model),
            _first(tower, "num_hidden_layers", "depth"),
            _first(tower, "embed_dim", "hidden_size"),
            _wide(tower),
        ),
        head=head.weight.numel(),
        vocabulary=head.weight.shape[0],
        cached=cached_numbers(text),
        adapter=_ends(linear),
        adapted=sum(map(_count, linear)),
        quantised=sum(_count(layer) for layer in linear if layer not in by_part[VISION] | by_part[CONNECTOR]),
        tower_adapter=_ends(by_part[VISION]),
        origin=place.origin,
        parts_known=facts_of(model).parts_known,
    )


def usual_pixels(place: Place, loading: LoadingSettings) -> int | None:
    """The limit of pixels that a run begins with where none is set; None: the model has one of its own.

    Raises:
        UserError: The model's processor cannot be opened.
    """
    opened: Any = AutoImageProcessor
    if place.published:
        return usual_limit(opened.from_pretrained(place.location, backend=BACKEND))
    processor: Any = open_processor(place.location, _kept_to(place, loading))
    return usual_limit(processor.image_processor)


def prompt_sizes_of(
    place: Place, loading: LoadingSettings, pictures: Sequence[Image], prompts: Prompts, *, on_gpu: bool = False
) -> PromptSizes:
    """How many tokens and patches a model makes of pictures with each prompt, and what preparing a picture takes.

    Args:
        place: Where the model is.
        loading: How it is loaded.
        pictures: The sample, at least one.
        prompts: The prompts.
        on_gpu: Whether the model's device is a GPU, which cuts pictures that become larger.

    Raises:
        UserError: The model's processor cannot be opened.
    """
    if place.published:
        return _estimated(place, loading, pictures, prompts, on_gpu=on_gpu)
    config, prompter = _config(place, loading), Prompter(open_processor(place.location, _kept_to(place, loading)))

    def prepared(picture: Image) -> Encoded:
        uncut = prompter.uncut(picture, prompts.annotate) if on_gpu else None
        return uncut or prompter.encode(picture, prompts.annotate)

    prepared(pictures[0])  # the first call compiles the chat template
    began = process_time()
    encoded = [prepared(picture) for picture in pictures]
    seconds = (process_time() - began) / len(pictures)
    patches = _mean([_patches(row.image, config) for row in encoded])
    tokens = _mean([len(row.tokens) for row in encoded])

    def seen(prompt: str) -> PromptSize:
        # What a prompt adds does not hang on the picture, so one picture tells the difference.
        more = len(prompter.encode(pictures[0], prompt).tokens) - len(encoded[0].tokens)
        return PromptSize(tokens + more, patches)

    preparation = mean_of(Preparation(seconds, *_bytes(row.image), _shown(row, config)) for row in encoded)
    return PromptSizes.of(prompts, seen, len(pictures), preparation=preparation)


def _estimated(
    place: Place, loading: LoadingSettings, pictures: Sequence[Image], prompts: Prompts, *, on_gpu: bool
) -> PromptSizes:
    """The picture's part from the image processor, which needs no tokenizer; the text's from its length."""
    counted = [_of_size(place, loading, picture.size, on_gpu=on_gpu) for picture in pictures]
    patches, preparation = _mean([each.patches for each in counted]), mean_of(each.preparation for each in counted)
    further = {picture.size: each.tracing for picture, each in zip(pictures, counted, strict=True)}
    del further[pictures[0].size]  # a sample of a single size tells of a pool that has no other
    tracing = sum(further.values()) / len(pictures)
    placeholders = patches / _patches_per_token(_config(place, loading))

    def seen(prompt: str) -> PromptSize:
        return PromptSize(placeholders + CHAT_TOKENS + len(prompt) / CHARACTERS_PER_TOKEN, patches)

    return PromptSizes.of(
        prompts, seen, len(pictures), _ESTIMATE, preparation._replace(seconds=preparation.seconds + tracing)
    )


class _OfSize(NamedTuple):
    """What pictures of one size have in common."""

    patches: int
    preparation: Preparation
    """Of each."""
    tracing: float
    """CPU seconds that it takes once to find out how they are cut."""


@cache
def _of_size(place: Place, loading: LoadingSettings, size: tuple[int, int], *, on_gpu: bool) -> _OfSize:
    """A picture of this size, whatever its content."""
    opened: Any = AutoImageProcessor
    processor = opened.from_pretrained(place.location, backend=BACKEND)
    if loading.max_pixels:
        limit_pixels(processor, loading.max_pixels)
    picture = new("RGB", size)
    cuts = None
    if on_gpu:
        cuts_by(processor, size)  # tries whether the processor can be followed at all, once
        began = process_time()
        cuts = cuts_by(processor, size)
    tracing = process_time() - began if cuts else 0.0

    def prepared() -> Mapping[str, Any]:
        if cuts:
            return {PIXELS: Uncut(np.array(picture), cuts)}
        features: Mapping[str, Any] = processor(images=[picture], return_tensors="pt")
        return features

    prepared()  # the first call takes longer
    began = process_time()
    arrays = prepared()
    seconds = process_time() - began
    return _OfSize(_patches(arrays, _config(place, loading)), Preparation(seconds, *_bytes(arrays)), tracing)


def _bytes(arrays: Mapping[str, Any]) -> tuple[int, int]:
    """Of a prepared picture, whose pixels are kept in 8 bits, in memory and in a file; none is written of one uncut."""
    if isinstance(uncut := arrays[PIXELS], Uncut):
        return uncut.nbytes, 0
    size = sum(int(np.asarray(array).size) for array in arrays.values())
    return size, size


def _shown(row: Encoded, config: PreTrainedConfig) -> int:
    """Bytes of what the language model is shown of a picture: in its place, in single precision."""
    token, hidden = image_token(config), config.get_text_config(decoder=True).hidden_size
    return 0 if token is None else row.tokens.count(token) * hidden * torch.float32.itemsize


def _patches(arrays: Any, config: PreTrainedConfig) -> int:  # noqa: ANN401 - a dictionary of one of two kinds
    """Patches of a picture in the vision tower: of (..., patches, values), or of tiles of (channels, height, width)."""
    pixels: tuple[int, ...] = tuple(arrays[PIXELS].shape)
    side = patch_side(config)
    if len(pixels) < 4:
        return prod(pixels[:-1])
    if not side:  # a convolutional tower has no patches; its tokens come closest
        return int(getattr(config, "image_seq_length", 0) or 0)
    return prod(pixels[:-3]) * (pixels[-2] // side) * (pixels[-1] // side)


def _patches_per_token(config: PreTrainedConfig) -> float:
    """Patches of the tower per token of the prompt, from the families' different settings."""
    tower: Any = getattr(config, "vision_config", None)
    if getattr(config, "mm_tokens_per_image", None):
        return float((tower.image_size // patch_side(config)) ** 2 / config.mm_tokens_per_image)
    merged = _first(tower, "spatial_merge_size", "pooling_kernel_size") or getattr(config, "scale_factor", None)
    shrunk = getattr(config, "downsample_ratio", None)
    return float(merged**2 if merged else shrunk**-2 if shrunk else 1)


@cache
def _without_storage(place: Place, loading: LoadingSettings) -> tuple[PreTrainedConfig, nn.Module]:
    config = _config(place, loading)
    opened: Any = AutoModelForImageTextToText
    try:
        with torch.device("meta"):
            return config, opened.from_config(config, trust_remote_code=loading.remote_code)
    except _PROBLEMS as problem:
        raise UserError(f"cannot build a vision-language model from {place.location}: {problem}") from problem


@cache
def _config(place: Place, loading: LoadingSettings) -> PreTrainedConfig:
    if not place.published:
        return open_config(place.location, _kept_to(place, loading))
    quieten()
    config: PreTrainedConfig = AutoConfig.from_pretrained(place.location)
    return config


def _kept_to(place: Place, loading: LoadingSettings) -> LoadingSettings:
    return loading.model_copy(update={"commit": place.commit}) if place.commit else loading


def _by_part(model: nn.Module, layers: Sequence[nn.Linear]) -> Mapping[str | None, set[nn.Linear]]:
    """The layers by the part of the model that they belong to; None where the parts are not known."""
    found: defaultdict[str | None, set[nn.Linear]] = defaultdict(set)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module in layers:
            found[part_of(name)].add(module)
    return found


def _tables(module: nn.Module) -> list[nn.Embedding]:
    """Its embeddings, which are looked up and not multiplied with; small models of Gemma 4 have some for each layer."""
    return [part for part in module.modules() if isinstance(part, nn.Embedding)]


def _for_sounds(model: nn.Module) -> int:
    """Parameters that no picture passes."""
    return sum(weight.numel() for name, weight in model.named_parameters() if "audio" in name)


def _ends(layers: Iterable[nn.Linear]) -> int:
    """Parameters of adapters of rank 1."""
    return sum(layer.in_features + layer.out_features for layer in layers)


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def _wide(part: PreTrainedConfig | None) -> int:
    """Width of the layers' inner part, which some families give as a multiple of the hidden size."""
    given = _first(part, "intermediate_size")
    return given or int(_first(part, "embed_dim", "hidden_size") * getattr(part, "mlp_ratio", 4))


def _first(part: PreTrainedConfig | None, *names: str) -> int:
    found = (getattr(part, name, None) for name in names)
    return next((int(value) for value in found if value), 0)


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)
