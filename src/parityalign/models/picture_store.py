"""Pictures as a processor prepared them, in files beside the run that later stages and models map into memory.

A file belongs to a picture's content and to everything that its pixels and tokens depend on. None is needed: what is
missing, damaged or does not fit on the disk is prepared again.
"""

import hashlib
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from parityalign.core import PictureRoom, content_id
from parityalign.models.cutting import on_device
from parityalign.models.eight_bits import settings_key
from parityalign.models.encoding import Encoded

SMALLEST = 2**17
"""Bytes of a picture that is worth a file: smaller ones are prepared as fast as a file is read and compared."""
_TEXT, _IMAGE = "text.", "image."
"""Beginnings of the arrays' names."""
_DIGEST, _SIZE = "digest", "size"


class PictureStore:
    """The prepared pictures of one processor; may be used by several threads and processes at once."""

    def __init__(self, room: PictureRoom, processor: Any, levels: torch.Tensor, tokens: list[int]) -> None:  # noqa: ANN401
        """Looks how much room is left.

        Args:
            room: Where the files lie.
            processor: The processor.
            levels: (3, 256) What its 8-bit values stand for.
            tokens: The chat that every picture is encoded with here.

        Raises:
            OSError: The disk refused.
        """
        specials = sorted((number, str(token)) for number, token in processor.tokenizer.added_tokens_decoder.items())
        depends = settings_key(processor), PIL.__version__, transformers.__version__, repr(tokens), repr(specials)
        self._folder = room.folder / content_id(*depends)
        self._levels, self._room, self._left = levels, room, room.left()
        self._counting = threading.Lock()

    def find(self, image_id: str) -> Encoded | None:
        """The prepared picture; None if there is none, or its file is damaged."""
        path = self._path(image_id)
        try:
            with safe_open(path, framework="pt") as file:
                said, names = file.metadata() or {}, file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
            width, height = map(int, said[_SIZE].split())
            whole = said[_DIGEST] == _digest(tensors, said[_SIZE])
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, LookupError, TypeError):
            whole = False
        if not whole:
            with suppress(OSError):
                path.unlink()
            return None
        text = {name.removeprefix(_TEXT): tensors[name].tolist() for name in names if name.startswith(_TEXT)}
        image = {name.removeprefix(_IMAGE): tensors[name].numpy() for name in names if name.startswith(_IMAGE)}
        return Encoded(text, image, (width, height), self._levels)

    def keep(self, image_id: str, row: Encoded) -> None:
        """Keeps a prepared picture if it is worth it and there is room; a disk that refuses is told of once."""
        if sum(array.nbytes for array in row.image.values()) < SMALLEST:
            return
        tensors = {_IMAGE + name: on_device(array).contiguous() for name, array in row.image.items()}
        tensors |= {_TEXT + name: torch.tensor(values, dtype=torch.int32) for name, values in row.per_token.items()}
        size = " ".join(map(str, row.size))
        content = save(tensors, {_SIZE: size, _DIGEST: _digest(tensors, size)})
        if self._takes(len(content)):
            self._write(image_id, content)

    def _takes(self, size: int) -> bool:
        with self._counting:
            self._left -= size
            if self._left < 0:
                self._left = 0
                return False
            return True

    def _write(self, image_id: str, content: bytes) -> None:
        part = self._folder / f".{image_id}.{os.getpid()}.{threading.get_ident()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(self._path(image_id))
        except OSError as problem:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            with self._counting:
                told, self._left = self._left == 0, 0
            if not told:
                self._room.say(
                    f"prepared pictures are no longer kept in {self._room.folder}: {problem.strerror or problem}. "
                    "The run goes on without; stages that see a picture again take longer."
                )

    def _path(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.safetensors"


def _digest(tensors: Mapping[str, torch.Tensor], size: str) -> str:
    digest = hashlib.blake2b(size.encode(), digest_size=16)
    for name in sorted(tensors):
        array = tensors[name].numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()
