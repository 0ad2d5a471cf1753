"""What vision tower and connector make of a picture: once for all prompts of a batch, and kept for later questions.

Features that are kept spare a picture that comes again the tower and all preparation, since only its tokens are needed
then: the teacher's pictures of annotate come again in identify. On a CPU alone: a GPU would have to wait while each
batch's are copied from it.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from parityalign.models.cutting import on_device
from parityalign.models.device import device_of
from parityalign.models.eight_bits import PIXELS
from parityalign.models.encoding import Encoded, Prompter, Seen, read_image
from parityalign.models.parts import image_token
from parityalign.models.pictures import image_bytes
from parityalign.models.stacking import POOLED, stack_images

KEPT_BYTES = {"cpu": 2**28}
"""By device: bytes that are kept of one model's pictures."""
_OF_THE_TOWER = frozenset((PIXELS, POOLED, "pixel_attention_mask"))
"""What of a picture the tower alone takes."""
_PLAIN = {"last_hidden_state", "pooler_output", "hidden_states", "attentions"}
_TILES = 3
"""Axes of features where a family stacks those of all tiles of all pictures: (tiles, tokens, width)."""

_Stamp = tuple[int, int]


class _Kept(NamedTuple):
    """A picture's features."""

    stamp: _Stamp | None
    """Of its file, before it was read."""
    seen: Seen
    """Its tokens; its pixels are unread."""
    features: torch.Tensor

    @property
    def nbytes(self) -> int:
        """With what else belongs to the picture, such as a mask of its pixels."""
        return self.features.nbytes + image_bytes(self.seen.encoded)


@dataclass(frozen=True)
class Unread:
    """Pixels whose features are kept; whoever needs them nevertheless has the picture prepared again."""

    path: str
    prompter: Prompter
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int = 0

    def on(self, device: torch.device) -> torch.Tensor:
        """The pixels.

        Raises:
            WorkFailed: The picture cannot be read any more.
        """
        return on_device(self.prompter.encode(read_image(self.path), "").image[PIXELS], device)


class PictureFeatures:
    """The connector's output for pictures, of one model; to be called from one thread."""

    def __init__(self, model: Any, prompter: Prompter) -> None:  # noqa: ANN401 - whichever class the family has
        """Computes nothing yet.

        Args:
            model: The model, whose weights never change.
            prompter: Its prompter.
        """
        self._model = model
        self._prompter = prompter
        self._device = device_of(model)
        self._token = image_token(model.config)
        self._left = _room(model, prompter)
        self._separable = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
        self._listed = False
        self._largest = 0
        self._kept: dict[str, _Kept] = {}
        self._begun: dict[str, _Stamp | None] = {}
        self._read: dict[str, tuple[_Stamp | None, Seen]] = {}

    def known(self, path: str) -> Seen | None:
        """A picture whose features are kept, its pixels unread; None: it has to be prepared, which begins now."""
        kept, stamp = self._kept.get(path), _stamp(path)
        if kept and kept.stamp == stamp:
            return kept.seen
        self._forget(path)
        if self._separable and self._left > self._largest:
            self._begun[path] = stamp
        return None

    def note(self, path: str, seen: Seen) -> None:
        """Notes the tokens of a picture that was prepared and is asked about next."""
        pixels = seen.encoded.image.get(PIXELS)
        if path in self._begun and pixels is not None:
            unread = Unread(path, self._prompter, pixels.shape, pixels.dtype)
            encoded = replace(seen.encoded, image={**seen.encoded.image, PIXELS: unread})
            self._read[path] = self._begun.pop(path), seen._replace(encoded=encoded)

    def in_place_of_pixels(self, paths: Sequence[str], rows: Sequence[Encoded]) -> tuple[list[Encoded], dict[str, Any]]:
        """A batch as the model takes it: rows without pixels, and what it takes in their place.

        With pixels, and nothing besides, where the model has to look at them itself: the family's features cannot be
        told apart by picture, or its language model needs more than these, or there is nothing to share or to keep.

        Args:
            paths: Of each row's picture; empty if it has none.
            rows: The batch.
        """
        features = self._of(paths, rows)
        if features is None:
            return [*rows], {}
        return [*map(_without_pixels, rows)], {"mm_encoder_outputs": {"image": features}}

    def _of(self, paths: Sequence[str], rows: Sequence[Encoded]) -> BaseModelOutputWithPooling | None:
        pictures = dict(zip(paths, rows, strict=True))
        if "" in pictures or not (self._keeps or len(pictures) < len(rows)):
            return None
        found = {path: self._kept[path].features for path in pictures if path in self._kept}
        new = {path: row for path, row in pictures.items() if path not in found}
        made = self._computed([*new.values()]) if new else []
        if made is None:
            self._read.clear()
            return None
        for path, features in zip(new, made, strict=True):
            found[path] = features
            self._keep(path, features)
        picked: Any = [found[path] for path in paths]
        return BaseModelOutputWithPooling(pooler_output=picked if self._listed else torch.cat(picked))

    @property
    def _keeps(self) -> bool:
        return self._separable and (self._left > 0 or bool(self._kept))

    @torch.no_grad()
    def _computed(self, rows: Sequence[Encoded]) -> list[torch.Tensor] | None:
        if not self._separable:
            return None
        inputs = stack_images(rows, device=self._device, dtype=self._model.dtype)
        read = self._model.base_model.get_image_features  # of the model with a head some hide what they take
        taken = inspect.signature(read).parameters
        outputs = read(**{key: inputs[key] for key in inputs if key in taken})
        features = getattr(outputs, "pooler_output", None) if set(outputs.keys()) <= _PLAIN else None
        self._separable = features is not None
        return self._by_picture(features, rows) if self._separable else None

    def _by_picture(self, features: Any, rows: Sequence[Encoded]) -> list[torch.Tensor] | None:  # noqa: ANN401
        """Tells a batch's features apart; a family lists them by picture, or stacks all tiles of all pictures."""
        self._listed = not isinstance(features, torch.Tensor)
        if self._listed:
            return [*features] if len(features) == len(rows) else None
        if features.ndim != _TILES or self._token is None:
            return None
        counts = [row.tokens.count(self._token) / features.shape[1] for row in rows]
        whole = sum(counts) == len(features) and all(count.is_integer() for count in counts)
        return [*features.split([int(count) for count in counts])] if whole else None

    def _keep(self, path: str, features: torch.Tensor) -> None:
        read = self._read.pop(path, None)
        if read is None:
            return
        kept = _Kept(*read, features)
        self._largest = max(self._largest, kept.nbytes)
        if kept.nbytes <= self._left:
            self._left -= kept.nbytes
            self._kept[path] = kept._replace(features=features.clone())  # else all of its batch would be held

    def _forget(self, path: str) -> None:
        kept = self._kept.pop(path, None)
        self._left += kept.nbytes if kept else 0


def _room(model: Any, prompter: Prompter) -> int:  # noqa: ANN401 - whichever class the family has
    """Bytes for pictures; none where parts are on several devices, or a processor sees picture and prompt together."""
    spread = len({*getattr(model, "hf_device_map", {}).values()}) > 1
    return 0 if spread or prompter.answer_marks else KEPT_BYTES.get(device_of(model).type, 0)


def _without_pixels(encoded: Encoded) -> Encoded:
    """The same row with what else belongs to its picture, such as the grid of its patches."""
    return replace(encoded, image={key: values for key, values in encoded.image.items() if key not in _OF_THE_TOWER})


def _stamp(path: str) -> _Stamp | None:
    """When a file was changed last, and its size; None if there is none."""
    try:
        seen = Path(path).stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size
