"""Splits prompts about the same pictures, so that each picture is read once for all of its prompts."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from parityalign.models.backends._batches import BatchRow
from parityalign.models.encoding import Encoded


class SplitPrompts(NamedTuple):
    """Prompts in two parts."""

    prefixes: list[BatchRow]
    """Of each picture the first prompt up to and with the words after the picture that all prompts share."""
    prefix_of: list[int]
    """For each prompt the place of its prefix."""
    suffixes: list[Encoded]
    """The rest of each prompt, of one token at least."""


def split_prompts(rows: Sequence[BatchRow], image_token: int | None) -> SplitPrompts | None:
    """Splits prompts behind their pictures; None: no picture has several prompts, or something else tells them apart.

    Args:
        rows: Distinct prompts.
        image_token: The id of the tokens that stand for pictures.
    """
    pictures = {row.request.image: row for row in rows}
    if len(pictures) == len(rows) or any(image_token not in row.encoded.tokens for row in rows):
        return None
    ends = [_last(row.encoded.tokens, image_token) + 1 for row in rows]
    tails = [row.encoded.tokens[end:] for row, end in zip(rows, ends, strict=True)]
    shared = min(len(os.path.commonprefix(tails)), min(map(len, tails)) - 1)
    # The first token behind the picture tells the position of the next.
    if shared < 1 or any(
        _is_told_apart(row, pictures[row.request.image], end) for row, end in zip(rows, ends, strict=True)
    ):
        return None
    cuts = {row.request.image: end + shared for row, end in zip(rows, ends, strict=True)}
    places = {image: place for place, image in enumerate(pictures)}
    return SplitPrompts(
        [row._replace(encoded=_until(row.encoded, cuts[image])) for image, row in pictures.items()],
        [places[row.request.image] for row in rows],
        [Encoded({"input_ids": tail[shared:]}, {}) for tail in tails],
    )


def _is_told_apart(row: BatchRow, first: BatchRow, end: int) -> bool:
    """Whether a prompt differs from the picture's first one up to the picture's end, or has types behind it."""
    same = row.encoded.tokens[:end] == first.encoded.tokens[:end]
    types = (values for key, values in row.encoded.per_token.items() if key != "input_ids")
    return not same or any(any(values[end:]) for values in types)


def _until(encoded: Encoded, end: int) -> Encoded:
    return replace(encoded, per_token={key: values[:end] for key, values in encoded.per_token.items()})


def _last(tokens: Sequence[int], token: int | None) -> int:
    return len(tokens) - 1 - tokens[::-1].index(token)
