"""Which token of one vocabulary is which of another: the same text."""

from collections.abc import Iterable
from typing import Protocol

import torch

_ANCHOR = "a"
_DAMAGED = "\ufffd"  # stands for bytes that are no whole character


class TextTokenizer(Protocol):
    """What is asked of a tokenizer of transformers."""

    def __len__(self) -> int:
        """Size of its vocabulary, added tokens included."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text."""

    def batch_decode(self, sequences: list[list[int]], **settings: bool) -> list[str]:
        """The texts of ids."""


def token_texts(tokenizer: TextTokenizer) -> list[str | None]:
    """What each token writes within a text, white space before it included; None where that is not certain.

    Tokens are decoded after a letter, since many tokenizers take white space away from the beginning of a text. Not
    certain are parts of a character, and tokens that write nothing.
    """
    before = tokenizer.encode(_ANCHOR, add_special_tokens=False)
    sequences = [before, *([*before, token] for token in range(len(tokenizer)))]
    settings = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    anchor, *texts = tokenizer.batch_decode(sequences, **settings)
    return [_after(anchor, text) for text in texts]


def token_map(
    teacher: Iterable[str | None], student: Iterable[str | None], *, ends: tuple[int, int] | None = None
) -> torch.Tensor:
    """The student's id of each token of the teacher, -1 where it has none of exactly that text.

    No id of the student stands for two of the teacher: where texts occur twice, the first of both is meant.

    Args:
        teacher: Texts by id, of `token_texts`.
        student: The same for the student.
        ends: The tokens that end an answer of the teacher and of the student, the same whatever their texts.
    """
    ids: dict[str, int] = {}
    for number, text in enumerate(student):
        if text is not None:
            ids.setdefault(text, number)
    # Each is taken out when it is found.
    mapped = torch.tensor([-1 if text is None else ids.pop(text, -1) for text in teacher], dtype=torch.long)
    if ends:
        theirs, ours = ends
        mapped[mapped == ours] = -1
        mapped[theirs] = ours
    return mapped


def _after(anchor: str, text: str) -> str | None:
    written = text.removeprefix(anchor)
    return written if text.startswith(anchor) and written and _DAMAGED not in written else None
