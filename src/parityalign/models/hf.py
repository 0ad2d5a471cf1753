"""Any vision-language model of transformers, from a Hugging Face folder or hub id, run in this process."""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutputWithPooling

from parityalign.config import LoadingSettings
from parityalign.opening import AS_IT_IS, open_model, open_processor
from parityalign.plugins import EMBEDDED_MODELS
from parityalign.prompting import (
    Encoded,
    Processor,
    Prompter,
    read_image,
    stack,
    stack_images,
    stop_tokens,
)
from parityalign.seams import Decoding, Request

TOKENS_PER_BATCH = 16384
"""Prompt tokens, padding included, that go through the model at once."""


def load(location: str, loading: LoadingSettings = AS_IT_IS) -> "HFModel":
    """The model in a folder or on the hub, ready to be asked.

    Raises:
        UserError: It is missing or no vision-language model with safetensors, processor and chat template.
    """
    processor = open_processor(location, loading)
    return HFModel(location, open_model(location, loading), processor)


class HFModel:
    """A `seams.Model` that runs in this process."""

    def __init__(self, location: str, model: PreTrainedModel, processor: Processor) -> None:
        self._location = location
        self._model: Any = model
        self._tokenizer = processor.tokenizer
        self._prompter = Prompter(processor)
        self._stop = stop_tokens(self._tokenizer, self._model.generation_config)
        pad = self._tokenizer.pad_token_id
        self._pad = pad if pad is not None else (self._stop or [0])[0]
        # Replaced, so that no habit of the folder (temperature, penalties) leaks into what the caller asked for.
        ends = {"eos_token_id": self._stop or None, "pad_token_id": self._pad}
        self._model.generation_config = GenerationConfig.from_dict(ends)

    @property
    def name(self) -> str:
        """`embedded:NAME` for a bundled model, else `hf:` and the location as it was given."""
        path = Path(self._location)
        return f"embedded:{path.name}" if path.parent == EMBEDDED_MODELS else f"hf:{self._location}"

    @property
    def special_tokens(self) -> frozenset[str]:
        """Texts that the processor would not read as plain text, such as the image placeholder."""
        return self._prompter.special_tokens

    def generate(self, requests: Sequence[Request], decoding: Decoding) -> list[str]:
        """The reply to each request, in order; special tokens that the model wrote stay visible in it.

        Raises:
            WorkFailed: An image cannot be read.
        """
        images = {path: read_image(path) for path in dict.fromkeys(request.image for request in requests)}
        rows = [self._prompter.encode(images[request.image], request.prompt) for request in requests]
        texts = [""] * len(requests)
        for batch in _batches([len(row.tokens) for row in rows]):
            written = self._write([requests[i] for i in batch], [rows[i] for i in batch], decoding)
            for i, text in zip(batch, written, strict=True):
                texts[i] = text
        return texts

    def _write(self, requests: Sequence[Request], rows: Sequence[Encoded], decoding: Decoding) -> list[str]:
        processors = LogitsProcessorList()
        if decoding.temperature > 0:
            seeds = [request.seed for request in requests]
            processors.append(GumbelNoise(seeds, decoding.temperature, self._model.device))
        with torch.inference_mode():
            inputs = self._inputs(rows, [request.image for request in requests])
            tokens = self._model.generate(
                **inputs, max_new_tokens=decoding.max_new_tokens, do_sample=False, logits_processor=processors
            )
        return [self._text(row) for row in tokens[:, inputs["input_ids"].shape[1] :].tolist()]

    def _text(self, tokens: list[int]) -> str:
        end = next((i for i, token in enumerate(tokens) if token in self._stop), len(tokens))
        kept = [token for token in tokens[:end] if token != self._pad]
        return self._tokenizer.decode(kept, skip_special_tokens=False).strip()

    def _inputs(self, rows: Sequence[Encoded], images: Sequence[str]) -> dict[str, Any]:
        """What `generate` takes: padded at the left; an image with several prompts is encoded once if possible."""
        inputs: dict[str, Any] = self._on_device(stack(rows, pad_token=self._pad, side="left"))
        distinct = {image: row for image, row in zip(images, rows, strict=True)}
        if len(distinct) < len(rows):
            features = self._image_features(list(distinct.values()))
            if features is not None:
                places = {image: place for place, image in enumerate(distinct)}
                del inputs["pixel_values"]
                inputs["mm_encoder_outputs"] = {"image": _picked(features, [places[image] for image in images])}
        return inputs

    def _image_features(self, rows: Sequence[Encoded]) -> torch.Tensor | list[torch.Tensor] | None:
        """One entry for each row's image, from the vision tower to the connector's end.

        None where the family's features cannot be told apart by image, or its language model takes more than these.
        """
        if "mm_encoder_outputs" not in inspect.signature(self._model.forward).parameters:
            return None
        inputs = self._on_device(stack_images([row.image for row in rows]))
        taken = inspect.signature(self._model.get_image_features).parameters
        outputs = self._model.get_image_features(**{key: inputs[key] for key in inputs if key in taken})
        plain = set(outputs.keys()) <= {"last_hidden_state", "pooler_output", "hidden_states", "attentions"}
        features = getattr(outputs, "pooler_output", None)
        return features if plain and features is not None and len(features) == len(rows) else None

    def _on_device(self, arrays: dict[str, Any]) -> dict[str, torch.Tensor]:
        tensors = {key: torch.from_numpy(array).to(self._model.device) for key, array in arrays.items()}
        return {
            key: tensor.to(self._model.dtype) if tensor.is_floating_point() else tensor
            for key, tensor in tensors.items()
        }


class GumbelNoise(LogitsProcessor):
    """Turns greedy search into exact sampling that depends on nothing but each row's own seed.

    The largest of `logits / temperature + Gumbel noise` is a draw from `softmax(logits / temperature)` (the
    Gumbel-max trick; Maddison, Tarlow and Minka, "A* Sampling", NeurIPS 2014, arXiv:1411.0030). Row by row the noise
    of step t is the t-th block of the row's own generator, so batch mates and resuming cannot change a draw.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed % 2**63) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The next token's scores (rows, vocabulary), of which greedy search takes the largest."""
        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self._temperature - noise.log_()  # -log of an exponential variate is Gumbel


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places in the list, shortest first, so that little is padded, in batches of at most TOKENS_PER_BATCH."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[place] * (len(batch) + 1) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _picked(features: torch.Tensor | list[torch.Tensor], places: Sequence[int]) -> BaseModelOutputWithPooling:
    """The features of the images at these places, some of them several times, as the model's own output type."""
    rows = [features[place] for place in places]
    picked: Any = torch.stack(rows) if isinstance(features, torch.Tensor) else rows
    return BaseModelOutputWithPooling(pooler_output=picked)
