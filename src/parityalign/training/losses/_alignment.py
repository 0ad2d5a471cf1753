"""Compares answers across two tokenizers, over the shortest stretches of text that are whole tokens for both.

A stretch is a binary event for both models: this text comes next, or anything else does. Its probabilities follow
from the tokens', so any divergence over classes applies: chunks as in Minixhofer et al. 2025 (arXiv:2503.20083).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch.nn import functional

from parityalign.training.losses._divergences import NOTHING, STUDENT_FLOOR, TEACHER_FLOOR, TopTokens


@dataclass(frozen=True)
class Group:
    """The same characters as tokens of either model."""

    student: range
    """Indices of the student's tokens."""
    teacher: range
    """Indices of the teacher's tokens."""

    @property
    def one_to_one(self) -> bool:
        """Whether it is a single token for both."""
        return len(self.student) == len(self.teacher) == 1


def align(student: Sequence[int], teacher: Sequence[int]) -> tuple[Group, ...]:
    """The finest segmentation of one answer into groups of whole tokens of both models.

    Every token is in one group, in order. White space outside all tokens belongs to the token after it. Tokens that
    are parts of one character stay together, and a token without characters joins the one before it (at the
    beginning: after it).

    Args:
        student: The end of each token in the text, in characters; the last one is the end token.
        teacher: The same for the teacher.

    Returns:
        The groups, the last one for the two end tokens; empty if a side has no other token.
    """
    if min(len(student), len(teacher)) < 2:
        return ()
    ours, theirs = _cuts(student), _cuts(teacher)
    common = [(0, 0), *((ours[place], theirs[place]) for place in sorted(ours.keys() & theirs.keys()))]
    last = (len(student), len(teacher))
    return tuple(Group(range(s, s_end), range(t, t_end)) for (s, t), (s_end, t_end) in pairwise([*common, last]))


def is_aligned(groups: Sequence[Group]) -> bool:
    """Whether there is a group besides the end of the text; if not, see `answer_difference`."""
    return len(groups) > 2 or any(group.one_to_one for group in groups[:-1])


def same_tokens(
    groups: Sequence[Group], student_ids: Sequence[int], teacher_ids: Sequence[int], token_map: torch.Tensor
) -> list[bool]:
    """The groups that are the same token for both, by text: there the teacher's distribution can be translated."""
    return [
        group.one_to_one and int(token_map[teacher_ids[group.teacher[0]]]) == student_ids[group.student[0]]
        for group in groups
    ]


def translated(teacher: TopTokens, token_map: torch.Tensor) -> TopTokens:
    """The teacher's top tokens with the student's ids; a token that the student lacks gets -1 and counts to the tail.

    Args:
        teacher: Its top tokens, with its own ids.
        token_map: From `token_map`: (teacher's vocabulary,) the student's id of each token, or -1.
    """
    known = (teacher.ids >= 0) & (teacher.ids < len(token_map))
    mapped = token_map.to(teacher.ids.device)[torch.where(known, teacher.ids, 0).long()]
    return TopTokens(torch.where(known, mapped, -1), teacher.logprobs, teacher.tail)


def member_table(spans: Sequence[range]) -> torch.Tensor:
    """Groups as a table (groups, longest) of token indices, padded with -1."""
    longest = max(map(len, spans), default=0) or 1
    rows = [[*span, *[-1] * (longest - len(span))] for span in spans]
    return torch.tensor(rows, dtype=torch.long).reshape(-1, longest)


def group_logprobs(tokens: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of a group's text and of anything else, from those of its tokens.

    Args:
        tokens: (N, 2) of the student's tokens: `class_logprobs` of only the answer's token, and of anything else.
        members: (groups, longest) from `member_table`.

    Returns:
        (groups, 2), two classes for a function of `DIVERGENCES`.
    """
    absent = members < 0
    own, other = tokens[members.clamp(min=0)].unbind(-1)
    own = own.masked_fill(absent, 0.0)
    before = functional.pad(own.cumsum(1)[:, :-1], (1, 0))
    # Anything else: a different first token, or the same first and a different second one, and so on. Subtracting the
    # product from 1 instead would leave only rounding error where the student is confident.
    other = (before + other).masked_fill(absent, NOTHING).logsumexp(1)
    return torch.stack([own.sum(1), other], 1).clamp(min=STUDENT_FLOOR)


def teacher_group_logprobs(logprobs: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    """The same for the teacher, for whose tokens only the log-probability is known.

    Args:
        logprobs: (N,) stored log-probabilities of the answer's tokens by the teacher's tokenizer.
        members: (groups, longest) from `member_table`.

    Returns:
        (groups, 2) without a gradient.
    """
    wide = logprobs.detach().to(torch.promote_types(logprobs.dtype, torch.float32))
    text = wide[members.clamp(min=0)].masked_fill(members < 0, 0.0).sum(1).clamp(TEACHER_FLOOR, 0.0)
    # log(1 - e^x) in a numerically stable form (Mächler 2012, the R package Rmpfr's note on log1mexp).
    other = torch.where(text > -math.log(2), (-torch.expm1(text)).log(), torch.log1p(-text.exp()))
    return torch.stack([text, other.clamp(min=TEACHER_FLOOR)], 1)


def answer_difference(student: torch.Tensor, teacher: torch.Tensor, characters: torch.Tensor) -> torch.Tensor:
    """The difference of a whole answer's probability, for answers without common token boundaries.

    Huber's loss (1964) of the difference of mean log-probability, in nats per character since the two have no token in
    common: quadratic up to 1, linear beyond, so that an outlier does not dominate.

    Args:
        student: (answers,) total log-probability.
        teacher: (answers,) the same for the teacher, in its own tokens; a constant.
        characters: (answers,) length of the text.
    """
    length = characters.clamp(min=1)
    wanted = teacher.detach().to(student.dtype) / length
    return functional.huber_loss(student / length, wanted, reduction="none")


def _cuts(ends: Sequence[int]) -> dict[float, int]:
    """Token boundaries within the text -> number of tokens before each.

    The end of the text counts as infinite, since only one side's tokens may include its white space.
    """
    *within, last = accumulate(ends[:-1], max)
    # Of tokens that end at the same position, the last one counts.
    return {place: number for number, place in enumerate(within, start=1) if 0 < place < last} | {
        math.inf: len(ends) - 1
    }
