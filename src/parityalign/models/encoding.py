"""Encodes an image and a prompt as a model's input, the same way for generation and training.

Written against transformers' processors without importing them; arrays are NumPy's.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from parityalign.core import UserError, WorkFailed
from parityalign.data import Unfit, open_picture, read_picture
from parityalign.models.cutting import Cuts, Later, Same, Uncut
from parityalign.models.eight_bits import PIXELS, EightBits, eight_bits
from parityalign.models.tracing import can_be_followed, cuts_of

Array = NDArray[Any]
_PER_TOKEN = ("input_ids", "token_type_ids", "mm_token_type_ids")
_MADE_HERE = ("attention_mask", "labels")
"""Outputs of processors that are replaced by our own; PaliGemma's gives labels even for a prompt without an answer."""
_LARGE = 2**16
"""Bytes of an array from which on its numbers are made small."""
_TRIED = "What is it?"
"""A prompt to try a processor with."""
_SIZES_KEPT = 512
"""Sizes of pictures whose cuts are kept."""


class Tokenizer(Protocol):
    """The methods of transformers' tokenizers that are used."""

    bos_token: str | None
    eos_token_id: int | None
    pad_token_id: int | None
    all_special_tokens: list[str]
    added_tokens_decoder: dict[int, Any]

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool = False) -> dict[str, Any]:
        """Text to `input_ids` and, on request, `offset_mapping`: start and end of each in the text."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Ids to text."""


class Processor(Protocol):
    """The methods of transformers' processors that are used."""

    tokenizer: Tokenizer

    def apply_chat_template(self, conversation: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        """The text of a chat."""

    def __call__(
        self, *, images: list[Image.Image], text: list[str], return_tensors: str, add_special_tokens: bool
    ) -> dict[str, Any]:
        """All model inputs."""

    def save_pretrained(self, save_directory: Path) -> object:
        """Writes the processor's files into a folder."""


class GenerationEnds(Protocol):
    """The attributes of transformers' `GenerationConfig` that are used."""

    eos_token_id: int | list[int] | None


class Pieces(NamedTuple):
    """A tokenized text."""

    ids: list[int]
    ends: list[int]
    """Where in the text each token ends, in characters."""


@dataclass(frozen=True)
class Encoded:
    """One image with its text, as input of one model."""

    per_token: dict[str, list[int]]
    """`input_ids` with the image's placeholders expanded, and other per-token inputs."""
    image: dict[str, Array | Later]
    """`pixel_values` and, for some families, masks, sizes or grids; the first axis is tiles or patches.

    Pixels in bytes stand for `levels`, other bytes for whole numbers."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the original image, in pixels."""
    levels: torch.Tensor | None = None
    """(3, 256) What each 8-bit value in `pixel_values` stands for; None: they are the numbers themselves."""

    @property
    def tokens(self) -> list[int]:
        """The token ids."""
        return self.per_token["input_ids"]


class _Cut(NamedTuple):
    """What pictures of one size have in common."""

    encoded: Encoded
    """Without pixels."""
    cuts: Cuts


class Seen(NamedTuple):
    """A picture encoded with the first prompt that it was needed with."""

    prompt: str
    encoded: Encoded


class Prompter:
    """Writes chats for one model.

    Attributes:
        processor: The model's.
        special_tokens: Texts that the tokenizer does not read as plain text.
        answer_marks: Nonzero per-token inputs of an answer's tokens. A processor that tells the answer from
            its prompt, as PaliGemma's does, marks it with 1: tokens with 0 attend in both directions, so an answer
            would see its own end in training.
    """

    def __init__(self, processor: Processor, name: str = "the model") -> None:
        """Opens nothing.

        Args:
            processor: The model's.
            name: The model in messages.
        """
        self._name = name
        self.special_tokens = _special_tokens(processor)
        takes_answers = "suffix" in inspect.signature(processor.__call__).parameters
        self.answer_marks = {"token_type_ids": 1} if takes_answers else {}
        self.processor = processor
        self._cut = lru_cache(_SIZES_KEPT)(self._cut_of_size)
        self._too_large = sys.maxsize  # bytes of a picture that had more than its tiles, as larger ones will have
        self._special = re.compile("|".join(map(re.escape, sorted(self.special_tokens, key=len, reverse=True))))

    def chat(self, prompt: str, answer: str | None = None, *, image: bool = True) -> str:
        """The text of a chat: the image if there is one, the prompt, then the generation prompt or the given answer.

        Raises:
            UserError: The model's chat template fails.
        """
        content = [*([{"type": "image"}] if image else []), {"type": "text", "text": self._plain(prompt)}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            said = [{"type": "text", "text": self._plain(answer)}]
            turns.append({"role": "assistant", "content": said})
        try:
            return self.processor.apply_chat_template(turns, add_generation_prompt=answer is None)
        except Exception as problem:  # the template is a program that came with the model
            raise UserError(
                f"the chat template of {self._name} fails: {type(problem).__name__}: {str(problem)[:300]}\n"
                "It has to take a picture and a text as parts of one turn, as the templates of vision-language models "
                "do. Mend chat_template.jinja in a copy of the model's folder."
            ) from problem

    def encode(self, image: Image.Image, prompt: str) -> Encoded:
        """The model's input up to the beginning of its answer."""
        text = self.chat(prompt)
        known = self.eight_bits
        features = self._read(known.processor if known else self.processor, image, text)
        per_token, arrays = _parts(features)
        small: dict[str, Array | Later] = {key: _small(array) for key, array in arrays.items()}
        if known is None:
            return Encoded(per_token, small, image.size)
        in_8_bits = arrays[PIXELS].astype(np.uint8, copy=False)
        return Encoded(per_token, small | {PIXELS: in_8_bits}, image.size, known.levels)

    def uncut(self, image: Image.Image, prompt: str) -> Encoded | None:
        """The same, with the picture itself in place of its tiles, which a device cuts: `cutting.py`.

        None: nobody but the processor can cut it, or the tiles are not larger than the picture.
        """
        own = 3 * image.width * image.height
        worthwhile = own < self._too_large and image.mode == "RGB" and self.cuts_elsewhere
        cut = self._cut(image.size, prompt) if worthwhile else None
        if cut is None:
            return None
        if cut.cuts.nbytes <= own:
            self._too_large = own
            return None
        uncut = Uncut(np.array(image), cut.cuts)
        return replace(cut.encoded, image={**cut.encoded.image, PIXELS: uncut})

    def _cut_of_size(self, size: tuple[int, int], prompt: str) -> _Cut | None:
        """How a picture of this width and height is cut; what follows from its size."""
        known, text = self.eight_bits, self.chat(prompt)
        found = known and cuts_of(
            known.processor, size, lambda processor, picture: self._read(processor, picture, text)
        )
        if not known or not found:
            return None
        cuts, features = found
        per_token, arrays = _parts(features)
        rest = {key: _short(array) for key, array in arrays.items()}
        return _Cut(Encoded(per_token, rest, size, known.levels), cuts)

    @cached_property
    def cuts_elsewhere(self) -> bool:
        """Whether pictures can be cut on a device as the processor would; else `uncut` gives None."""
        known, text = self.eight_bits, self.chat(_TRIED)
        if known is None:
            return False
        return can_be_followed(
            self.processor, known.processor, lambda processor, picture: self._read(processor, picture, text)
        )

    @cached_property
    def eight_bits(self) -> EightBits | None:
        """How to get the processor's pixels in 8 bits; None: they do not follow from 8 bits."""
        text = self.chat(_TRIED)
        return eight_bits(self.processor, lambda processor, picture: self._read(processor, picture, text))

    def _read(self, processor: Processor, image: Image.Image, text: str) -> dict[str, Any]:
        adds = self._adds_special_tokens(text)
        return processor(images=[image], text=[text], return_tensors="pt", add_special_tokens=adds)

    def encode_text(self, prompt: str) -> Encoded:
        """The same for a prompt without an image, which concerns the tokenizer alone."""
        tokens = self.tokens(prompt, image=False)
        return Encoded({"input_ids": tokens, **{key: [0] * len(tokens) for key in self.answer_marks}}, {})

    def tokens(self, prompt: str, *, image: bool = True) -> list[int]:
        """The tokens of the chat up to the answer, with one placeholder for the image if there is one."""
        text = self.chat(prompt, image=image)
        read = self.processor.tokenizer(text, add_special_tokens=self._adds_special_tokens(text))
        return list(read["input_ids"])

    def answer_pieces(self, encoded: Encoded, prompt: str, lead: str, answer: str) -> Pieces:
        """The tokens of `lead + answer` after the prompt, whose own tokens (`encoded`) stay unchanged."""
        text, said = self.chat(prompt), lead + self._plain(answer)
        before, whole = self._pieces(text).ids, self._pieces(text + said)
        start, first = len(text + lead), len(before)
        if whole.ids[:first] != before or encoded.tokens[-1] != before[-1]:
            # A tokenizer that merges across the boundary would change the prompt, and PaliGemma's processor appends a
            # newline to the prompt that is not in the chat; then the answer is tokenized alone.
            whole, start, first = self._pieces(said, begun=True), len(lead), 0
        ends = [min(max(0, end - start), len(answer)) for end in whole.ends[first:]]
        return Pieces(whole.ids[first:], ends)

    def _pieces(self, text: str, *, begun: bool = False) -> Pieces:
        special = not begun and self._adds_special_tokens(text)
        read = self.processor.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        return Pieces(list(read["input_ids"]), [end for _, end in read["offset_mapping"]])

    def _adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer has to add its start token; some chat templates write it already."""
        begin = self.processor.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def _plain(self, text: str) -> str:
        """The text with a space inside every special token, so that a question cannot hold an image placeholder."""
        if not self.special_tokens:
            return text
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _parts(features: dict[str, Any]) -> tuple[dict[str, list[int]], dict[str, Array]]:
    """What a processor makes of each token, and of the image."""
    # `np.asarray`, since image processors with a torchvision backend return only torch tensors.
    per_token = {key: np.asarray(features[key])[0].tolist() for key in _PER_TOKEN if key in features}
    rest = features.keys() - {*_PER_TOKEN, *_MADE_HERE}
    return per_token, {key: np.asarray(features[key]) for key in sorted(rest)}


def _short(array: Array) -> Array | Later:
    """The array, in as few bytes as it takes."""
    alike = Same.of(array) if array.nbytes >= _LARGE else None
    return _small(array) if alike is None else alike


def _small(array: Array) -> Array:
    """The array, in bytes where it is a large one of small whole numbers, such as a mask of pixels."""
    large = array.dtype == np.int64 and array.nbytes >= _LARGE
    return array.astype(np.uint8) if large and array.min() >= 0 and array.max() < 256 else array


def read_image(path: str) -> Image.Image:
    """The image as intake saw it: see `data/images.py`.

    Raises:
        WorkFailed: The file is gone or can no longer be decoded.
    """
    with cannot_be_read(path):
        return read_picture(Path(path))


def decoded(content: bytes, path: str) -> Image.Image:
    """The image in a file's content.

    Raises:
        WorkFailed: It can no longer be decoded.
    """
    with cannot_be_read(path):
        return open_picture(content).image


@contextmanager
def cannot_be_read(path: str) -> Iterator[None]:
    """Says of an unfit image which file it is, as `WorkFailed`."""
    try:
        yield
    except Unfit as problem:
        raise WorkFailed(f"cannot read the image {path}: {problem}") from problem


def stop_tokens(tokenizer: Tokenizer, generation_config: GenerationEnds) -> list[int]:
    """The ids that end a reply: those of the generation config and the tokenizer's end token."""
    ends = generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return list(dict.fromkeys(end for end in (*listed, tokenizer.eos_token_id) if end is not None))


def _special_tokens(processor: Processor) -> frozenset[str]:
    tokenizer = processor.tokenizer
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    places = (getattr(processor, f"{medium}_token", None) for medium in ("image", "video", "audio"))
    # A single character (some tokenizers pad with "!") is plain text, and a space cannot break it.
    return frozenset(token for token in (*added, *tokenizer.all_special_tokens, *places) if token and len(token) > 1)
