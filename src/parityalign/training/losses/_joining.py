"""Joins the teacher's stored signals to the student's batches: distributions in the student's ids, attention maps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from parityalign.core import Observation
from parityalign.models import GRID, IGNORE_INDEX, LabelledRow, Processor, TokenBoxes, spread_over_cells
from parityalign.training.losses._alignment import (
    align,
    is_aligned,
    member_table,
    same_tokens,
    teacher_group_logprobs,
    translated,
)
from parityalign.training.losses._divergences import TopTokens
from parityalign.training.losses._vocabulary import token_map, token_texts


@dataclass(frozen=True)
class Signals:
    """The stored teacher signals of the pairs."""

    observations: Mapping[str, Observation]
    """The teacher's observations by pair."""
    weights: Mapping[str, float]
    """Weights by pair; 1 if missing."""
    rationales: Mapping[str, tuple[str, str]]
    """By pair: the rationale prompt, and the teacher's reply, which leads to the answer."""
    digest: str
    """A fingerprint of all of these."""
    open_teacher: Callable[[], Processor] | None
    """Opens the teacher's processor, whose token ids the observations use. None: they hold no token ids."""


class _TeacherLabels(NamedTuple):
    """What the teacher's observation says of a student's answer."""

    top: TopTokens
    """The teacher's signals for each of the student's tokens."""
    groups: torch.Tensor
    """(groups, longest) indices of the student's tokens."""
    group_logprobs: torch.Tensor
    """(groups, 2)"""
    whole: float
    """Log-probability of the whole answer, if it has no common token boundary."""
    characters: int
    """Length of the answer in that case, else 0."""


class Joiner:
    """Makes the tensors that terms need from the stored signals."""

    def __init__(self, signals: Signals, processor: Processor, needs: frozenset[str]) -> None:
        """Prepares the map between the two vocabularies, and the student's image tokens.

        Args:
            signals: The stored signals.
            processor: The student's.
            needs: The needs of the terms.

        Raises:
            UserError: The order of the student's image tokens is not known, but its attention is needed.
        """
        self._signals = signals
        self._needs = needs
        self._boxes = TokenBoxes(processor) if "attention" in needs else None
        self._processor = processor
        self._map: torch.Tensor | None = None

    def __call__(self, pair_ids: Sequence[str], rows: Sequence[LabelledRow]) -> dict[str, torch.Tensor]:
        """The tensors of a batch of these pairs besides the model's inputs; see `_passes.py`."""
        weights = [self._signals.weights.get(pair_id, 1.0) for pair_id in pair_ids]
        found = {"weight": torch.tensor(weights)}
        if "distribution" in self._needs:
            found |= _stacked([self._of(pair_id, row) for pair_id, row in zip(pair_ids, rows, strict=True)])
        if self._boxes:
            found |= self._maps(pair_ids, rows, self._boxes)
        return found

    def _of(self, pair_id: str, row: LabelledRow) -> _TeacherLabels:
        seen = self._signals.observations.get(pair_id)
        return _told(row, seen, self._tokens(row, seen)) if seen else _nothing(len(row.ends))

    def _tokens(self, row: LabelledRow, seen: Observation) -> torch.Tensor:
        """The student's id of each of the teacher's tokens; empty if the teacher's tokens are not known."""
        if self._map is None:
            ends = int(seen.ids[-1]), row.encoded.per_token["labels"][-1]
            self._map = _map_of_tokens(self._signals, self._processor, ends)
        return self._map

    def _maps(self, pair_ids: Sequence[str], rows: Sequence[LabelledRow], boxes: TokenBoxes) -> dict[str, torch.Tensor]:
        placed = [boxes.locate(row.encoded.size, row.encoded.tokens) for row in rows]
        longest = max(len(each.positions) for each in placed)
        tokens = np.zeros((len(rows), longest), dtype=np.int64)
        shares = np.zeros((len(rows), longest, GRID * GRID), dtype=np.float32)
        places = np.zeros((len(rows), GRID * GRID), dtype=np.float32)
        for i, (pair_id, each) in enumerate(zip(pair_ids, placed, strict=True)):
            tokens[i, : len(each.positions)] = each.positions
            shares[i, : len(each.positions)] = spread_over_cells(each.boxes)
            seen = self._signals.observations.get(pair_id)
            if seen is not None and len(seen.places):
                places[i] = seen.places
        arrays = {"image_tokens": tokens, "spread": shares, "places": places}
        return {key: torch.from_numpy(array) for key, array in arrays.items()}


def _map_of_tokens(signals: Signals, processor: Processor, ends: tuple[int, int]) -> torch.Tensor:
    if signals.open_teacher is None:
        return torch.zeros(0, dtype=torch.long)
    teacher: Any = signals.open_teacher().tokenizer
    student: Any = processor.tokenizer
    if teacher.get_vocab() == student.get_vocab() and ends[0] == ends[1]:
        return torch.arange(1 + max(student.get_vocab().values()))
    return token_map(token_texts(teacher), token_texts(student), ends=ends)


def _told(row: LabelledRow, seen: Observation, tokens: torch.Tensor) -> _TeacherLabels:
    """The teacher's observation in the student's tokens: alike where both have the same token, else by groups."""
    ids = [label for label in row.encoded.per_token["labels"] if label != IGNORE_INDEX]
    seen_ids = torch.from_numpy(seen.ids).long()
    logprobs, tail = (torch.from_numpy(array).float() for array in (seen.top_logprobs, seen.tail))
    top = TopTokens(torch.from_numpy(seen.top_ids).long(), logprobs, tail)
    if len(tokens) and tokens[seen_ids].tolist() == ids:
        return _nothing(0)._replace(top=translated(top, tokens))
    known = _nothing(len(ids), top.ids.shape[1])
    groups = align(row.ends, seen.ends.tolist())
    if not is_aligned(groups):
        return known._replace(whole=float(seen.logprobs.astype(np.float64).sum()), characters=row.ends[-1])
    alike = same_tokens(groups, ids, seen.ids.tolist(), tokens) if len(tokens) else [False] * len(groups)
    for group, found in zip(groups, alike, strict=True):
        if found:
            translation = translated(top[torch.tensor(group.teacher)], tokens)
            for mine, theirs in zip(vars(known.top).values(), vars(translation).values(), strict=True):
                mine[group.student[0]] = theirs[0]
    other = [group for group, found in zip(groups, alike, strict=True) if not found]
    grouped = teacher_group_logprobs(torch.from_numpy(seen.logprobs), member_table([group.teacher for group in other]))
    return known._replace(groups=member_table([group.student for group in other]), group_logprobs=grouped)


def _nothing(tokens: int, top: int = 1) -> _TeacherLabels:
    """No signals, which costs nothing."""
    unlisted = TopTokens(
        torch.full((tokens, top), -1), torch.full((tokens, top), -torch.inf), torch.full((tokens,), -torch.inf)
    )
    return _TeacherLabels(unlisted, member_table([]), torch.zeros(0, 2), 0.0, 0)


def _stacked(told: Sequence[_TeacherLabels]) -> dict[str, torch.Tensor]:
    """Of the rows of a batch, one after the other; numbers of tokens then count from the batch's first."""
    widest = max(each.top.ids.shape[1] for each in told)
    longest = max(each.groups.shape[1] for each in told)
    members, before = [], 0
    for each in told:
        moved = torch.where(each.groups >= 0, each.groups + before, -1)
        members.append(_widened(moved, longest, -1))
        before += len(each.top.tail)
    return {
        "top_ids": torch.cat([_widened(each.top.ids, widest, -1) for each in told]),
        "top_logprobs": torch.cat([_widened(each.top.logprobs, widest, -torch.inf) for each in told]),
        "tail": torch.cat([each.top.tail for each in told]),
        "members": torch.cat(members),
        "member_logprobs": torch.cat([each.group_logprobs.float() for each in told]),
        "whole_logprob": torch.tensor([each.whole for each in told]),
        "characters": torch.tensor([each.characters for each in told]),
    }


def _widened(rows: torch.Tensor, width: int, fill: float) -> torch.Tensor:
    return torch.nn.functional.pad(rows, (0, width - rows.shape[1]), value=fill)
