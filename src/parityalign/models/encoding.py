"""How an image and a prompt become a model's input: one way, for generating and for training alike.

Written against transformers' processors without importing them, so that it needs no torch; arrays are NumPy's.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from parityalign.core import WorkFailed
from parityalign.data import Unfit, read_picture

Array = NDArray[Any]
_PER_TOKEN = ("input_ids", "token_type_ids", "mm_token_type_ids")
_MADE_HERE = ("attention_mask", "labels")
"""What processors give too, but batches make themselves; PaliGemma's gives labels, for a prompt without an answer."""
_PADDING = {"labels": -100}
"""What fills up a row, besides the tokens themselves; 0 where nothing is said. -100: no loss, as torch has it."""


class Tokenizer(Protocol):
    """What is needed of one of transformers' tokenizers."""

    bos_token: str | None
    eos_token_id: int | None
    pad_token_id: int | None
    all_special_tokens: list[str]
    added_tokens_decoder: dict[int, Any]

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool = False) -> dict[str, Any]:
        """Text to `input_ids` and, where asked, `offset_mapping`: start and end of each in the text."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        """Ids to text."""


class Processor(Protocol):
    """What is needed of one of transformers' processors."""

    tokenizer: Tokenizer

    def apply_chat_template(self, conversation: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        """The text of a chat."""

    def __call__(
        self, *, images: list[Image.Image], text: list[str], return_tensors: str, add_special_tokens: bool
    ) -> dict[str, Any]:
        """Everything that the model takes."""

    def save_pretrained(self, save_directory: Path) -> object:
        """Writes the processor's files into a folder."""


class GenerationEnds(Protocol):
    """What is needed of transformers' `GenerationConfig`."""

    eos_token_id: int | list[int] | None


class Pieces(NamedTuple):
    """A text in tokens."""

    ids: list[int]
    ends: list[int]
    """Where in the text each token ends, in characters."""


@dataclass(frozen=True)
class Encoded:
    """One image with its text, as one model takes it in."""

    per_token: dict[str, list[int]]
    """`input_ids` with the image's placeholders spelt out, and what else goes along with every token."""
    image: dict[str, Array]
    """`pixel_values` and, in some families, sizes or grids; the first axis is tiles or patches."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the picture itself, in pixels."""

    @property
    def tokens(self) -> list[int]:
        """The token ids."""
        return self.per_token["input_ids"]


class Prompter:
    """Writes chats for one model.

    Attributes:
        special_tokens: Texts that the model does not read as plain text.
        answer_marks: What goes along with an answer's tokens, besides zeros. A processor that takes an answer apart
            from its prompt, as PaliGemma's does, marks it with 1: what has 0 there is read in both directions, so an
            answer would see its own end while it is learnt.
    """

    def __init__(self, processor: Processor) -> None:
        self.special_tokens = _special_tokens(processor)
        takes_answers = "suffix" in inspect.signature(processor.__call__).parameters
        self.answer_marks = {"token_type_ids": 1} if takes_answers else {}
        self._processor = processor
        self._special = re.compile("|".join(map(re.escape, sorted(self.special_tokens, key=len, reverse=True))))

    def chat(self, prompt: str, answer: str | None = None) -> str:
        """The text of a chat: the image, the prompt, then the place for the answer, or the answer."""
        content = [{"type": "image"}, {"type": "text", "text": self._plain(prompt)}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            said = [{"type": "text", "text": self._plain(answer)}]
            turns.append({"role": "assistant", "content": said})
        return self._processor.apply_chat_template(turns, add_generation_prompt=answer is None)

    def encode(self, image: Image.Image, prompt: str) -> Encoded:
        """The model's input up to the place where its answer begins."""
        text = self.chat(prompt)
        features = self._processor(
            images=[image], text=[text], return_tensors="pt", add_special_tokens=self._adds_special_tokens(text)
        )
        # Through `np.asarray`: image processors with a torchvision backend return nothing but torch tensors.
        per_token = {key: np.asarray(features[key])[0].tolist() for key in _PER_TOKEN if key in features}
        rest = features.keys() - {*_PER_TOKEN, *_MADE_HERE}
        return Encoded(per_token, {key: np.asarray(features[key]) for key in sorted(rest)}, image.size)

    def tokens(self, prompt: str) -> list[int]:
        """The tokens of the chat up to the place of the answer, with one placeholder for the image."""
        text = self.chat(prompt)
        read = self._processor.tokenizer(text, add_special_tokens=self._adds_special_tokens(text))
        return list(read["input_ids"])

    def answer_pieces(self, encoded: Encoded, prompt: str, lead: str, answer: str) -> Pieces:
        """The tokens of `lead + answer` where they follow the prompt, whose own tokens (`encoded`) stay as they are."""
        text, said = self.chat(prompt), lead + self._plain(answer)
        before, whole = self._pieces(text).ids, self._pieces(text + said)
        start, first = len(text + lead), len(before)
        if whole.ids[:first] != before or encoded.tokens[-1] != before[-1]:
            # A tokenizer that merges across the border would change the prompt, and PaliGemma's processor ends the
            # prompt with a line's end that is not in the chat; then the answer is read on its own.
            whole, start, first = self._pieces(said, begun=True), len(lead), 0
        ends = [min(max(0, end - start), len(answer)) for end in whole.ends[first:]]
        return Pieces(whole.ids[first:], ends)

    def _pieces(self, text: str, *, begun: bool = False) -> Pieces:
        special = not begun and self._adds_special_tokens(text)
        read = self._processor.tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        return Pieces(list(read["input_ids"]), [end for _, end in read["offset_mapping"]])

    def _adds_special_tokens(self, text: str) -> bool:
        """Whether the tokenizer has to begin the text as it begins every text; some chat templates do so already."""
        begin = self._processor.tokenizer.bos_token
        return not (begin and text.startswith(begin))

    def _plain(self, text: str) -> str:
        """The text with a space inside every special token, so that a question cannot hold an image's place."""
        if not self.special_tokens:
            return text
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def read_image(path: str) -> Image.Image:
    """The image as intake saw it: see `data/images.py`.

    Raises:
        WorkFailed: The file is gone or can no longer be decoded.
    """
    try:
        return read_picture(Path(path))
    except Unfit as problem:
        raise WorkFailed(f"cannot read the image {path}: {problem}") from problem


def stack(rows: Sequence[Encoded], *, pad_token: int, side: Literal["left", "right"]) -> dict[str, Array]:
    """Rows side by side: per-token values (rows, longest row), filled up at one side, and the images' arrays."""
    longest = max(len(row.tokens) for row in rows)

    def filled(values: list[int], fill: int) -> list[int]:
        padding = [fill] * (longest - len(values))
        return padding + values if side == "left" else values + padding

    padding = {"input_ids": pad_token, **_PADDING}
    batch = {
        key: np.array([filled(row.per_token[key], padding.get(key, 0)) for row in rows]) for key in rows[0].per_token
    }
    batch["attention_mask"] = np.array([filled([1] * len(row.tokens), 0) for row in rows])
    return batch | stack_images([row.image for row in rows])


def stack_images(images: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """The arrays of several images joined along the first axis, filled up with zeros where their shapes differ."""
    return {key: _joined([image[key] for image in images]) for key in images[0]}


def _joined(arrays: list[Array]) -> Array:
    largest = np.max([array.shape[1:] for array in arrays], axis=0)
    fills = [[(0, 0), *((0, most - size) for most, size in zip(largest, a.shape[1:], strict=True))] for a in arrays]
    return np.concatenate([np.pad(a, fill) if np.any(fill) else a for a, fill in zip(arrays, fills, strict=True)])


def stop_tokens(tokenizer: Tokenizer, generation_config: GenerationEnds) -> list[int]:
    """The ids that end a reply: those of the model's generation settings and the tokenizer's own end token."""
    ends = generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return list(dict.fromkeys(end for end in (*listed, tokenizer.eos_token_id) if end is not None))


def _special_tokens(processor: Processor) -> frozenset[str]:
    tokenizer = processor.tokenizer
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    places = (getattr(processor, f"{medium}_token", None) for medium in ("image", "video", "audio"))
    # A single character (some tokenizers pad with "!") cannot be told from plain text, nor be broken by a space.
    return frozenset(token for token in (*added, *tokenizer.all_special_tokens, *places) if token and len(token) > 1)
