"""Maps tokens between two vocabularies by equal text."""

from collections.abc import Iterable
from typing import Protocol

import torch

_ANCHOR = "a"
_DAMAGED = "\ufffd"  # replaces bytes that are not a whole character


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

    Tokens are decoded after a letter, since many tokenizers strip white space at the beginning of a text. Parts of a
    character and tokens without text are not certain.
    """
    before = tokenizer.encode(_ANCHOR, add_special_tokens=False)
    sequences = [before, *([*before, token] for token in range(len(tokenizer)))]
    settings = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    anchor, *texts = tokenizer.batch_decode(sequences, **settings)
    return [_after(anchor, text) for text in texts]


def token_map(
    teacher: Iterable[str | None], student: Iterable[str | None], *, ends: tuple[int, int] | None = None
) -> torch.Tensor:
    """The student's id of each token of the teacher, -1 if it has no token of exactly that text.

    No id of the student is used twice: if texts repeat, the first of each side are matched.

    Args:
        teacher: Texts by id, from `token_texts`.
        student: The same for the student.
        ends: The end tokens of the teacher and of the student, matched whatever their texts.
    """
    ids: dict[str, int] = {}
    for number, text in enumerate(student):
        if text is not None:
            ids.setdefault(text, number)
    # Each is removed when it is matched.
    mapped = torch.tensor([-1 if text is None else ids.pop(text, -1) for text in teacher], dtype=torch.long)
    if ends:
        theirs, ours = ends
        mapped[mapped == ours] = -1
        mapped[theirs] = ours
    return mapped


def _after(anchor: str, text: str) -> str | None:
    written = text.removeprefix(anchor)
    return written if text.startswith(anchor) and written and _DAMAGED not in written else None
