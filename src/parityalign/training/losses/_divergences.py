"""Divergences of the student's distributions from the teacher's stored ones; formulas, sources: docs/objectives.md.

All functions work row by row, in float32 or wider, and give nats. Value and gradient are finite for all finite or
minus infinite log-probabilities. NaN is propagated, so that a failed training step is detected.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(teacher's, student's) log-probabilities (N, classes) -> (N,); zero where both are equal."""

TEACHER_FLOOR = -100.0
"""Lower bound of the teacher's log-probabilities: what it rules out costs the student 100 nats, not infinity."""
STUDENT_FLOOR = -(2.0**17)
"""Lower bound of the student's: beyond any two half-precision logits' difference, so they keep gradients."""
NOTHING = -1e30
"""Log-probability in place of -inf, where an empty sum would have no gradient."""
_LEAST_SHARE = 1e-30
_LEAST_SUM = 1e-12


@dataclass(frozen=True)
class TopTokens:
    """The stored part of a teacher's distribution for each of N answer tokens: its likeliest tokens and the rest."""

    ids: torch.Tensor
    """(N, k), distinct within a row; negative: a token that the student does not have."""
    logprobs: torch.Tensor
    """(N, k) log-probabilities of `ids`, in nats; padded with -inf."""
    tail: torch.Tensor
    """(N,) log of the probability mass of all other tokens; -inf if there is none."""

    def __getitem__(self, place: slice | torch.Tensor) -> "TopTokens":
        """The same for some of the tokens."""
        return TopTokens(self.ids[place], self.logprobs[place], self.tail[place])


def forward_kl(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student): the student covers everything that the teacher finds possible (Hinton et al. 2015)."""
    return (teacher.exp() * (teacher - student)).sum(-1)


def reverse_kl(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """KL(student || teacher): the student avoids what the teacher finds impossible (Gu et al. 2024, MiniLLM)."""
    return (student.exp() * (student - teacher)).sum(-1)


def jensen_shannon(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Mean of both divergences from the average of the two: symmetric, at most ln 2 (Lin 1991)."""
    middle = torch.logaddexp(teacher, student) - math.log(2)
    return (forward_kl(teacher, middle) + forward_kl(student, middle)) / 2


DIVERGENCES: Mapping[str, Divergence] = {
    "forward": forward_kl,
    "reverse": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
"""By their names in a configuration."""


def token_divergence(
    logits: torch.Tensor, teacher: TopTokens, *, shared: int, divergence: Divergence = forward_kl
) -> torch.Tensor:
    """Divergence of the student's next token from the teacher's, over the listed tokens and `anything else`.

    Args:
        logits: (N, outputs) of the student, one row for each answer token that has signals.
        teacher: Its signals for the same tokens. A row without listed tokens and tail holds no signals and costs 0.
        shared: Size of the common vocabulary, at most `outputs`.
        divergence: One of `DIVERGENCES`.

    Returns:
        (N,), at least 0.
    """
    student = class_logprobs(logits, teacher.ids, shared)
    wanted, present = _teacher_classes(teacher, shared, student.dtype)
    return torch.where(present, divergence(wanted, student), 0.0)


def class_logprobs(logits: torch.Tensor, ids: torch.Tensor, shared: int) -> torch.Tensor:
    """The student's log-probabilities of the listed tokens and of anything else; they sum to 1 over k + 1 classes.

    The student's vocabulary is cropped: its distribution is normalised over the first `shared` outputs, so further
    outputs (padding rows, tokens that the other model lacks) change nothing.

    Args:
        logits: (N, outputs).
        ids: (N, k), distinct within a row; an id that is negative or not below `shared` is an empty class.
        shared: Number of outputs that count.

    Returns:
        (N, k + 1), the last column for anything else.
    """
    # One more output of probability 0, for ids without one, which take nothing from the rest.
    padded = functional.pad(_wide(logits[:, :shared]), (0, 1), value=NOTHING)
    places = torch.where(_known(ids, shared), ids, shared).long()
    listed = padded.gather(1, places)
    # The mass of the rest is summed, not subtracted from 1, which would leave only rounding error at high confidence.
    rest = padded.scatter(1, places, NOTHING).logsumexp(1, keepdim=True)
    return torch.cat([listed, rest], 1).log_softmax(1).clamp(min=STUDENT_FLOOR)


def attention_divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence of the two models' attention maps, on a common grid of the picture.

    Args:
        student: (rows, cells) of attention, not negative; each row is normalised here.
        teacher: The same for the teacher. If either row is empty (sums to less than 1e-12), the divergence is
            0 without a gradient.

    Returns:
        (rows,), from 0 to ln 2.
    """
    student = _wide(student)
    teacher = teacher.detach().to(student.dtype)
    missing = (student.sum(1) < _LEAST_SUM) | (teacher.sum(1) < _LEAST_SUM)
    maps = [_share_logs(one.masked_fill(missing[:, None], 1.0)) for one in (teacher, student)]
    return jensen_shannon(*maps).masked_fill(missing, 0.0)


def view_divergence(first: torch.Tensor, second: torch.Tensor, *, stop_gradient: bool = False) -> torch.Tensor:
    """Jensen-Shannon divergence between the student's own next tokens under two views of the image.

    Args:
        first: (N, outputs) logits under one view.
        second: (N, outputs) logits of the same tokens under the other.
        stop_gradient: Whether `second` is a fixed target without a gradient (Chen and He 2021,
            arXiv:2011.10566).

    Returns:
        (N,), from 0 to ln 2.
    """
    target = second.detach() if stop_gradient else second
    one, other = (_wide(logits).log_softmax(-1).clamp(min=STUDENT_FLOOR) for logits in (first, target))
    return jensen_shannon(other, one)


def _teacher_classes(teacher: TopTokens, shared: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities (N, k + 1) over the same classes as the student's, and which rows hold signals."""
    known = _known(teacher.ids, shared)
    logprobs = teacher.logprobs.to(dtype)
    tail = torch.cat([logprobs.masked_fill(known, -math.inf), teacher.tail.to(dtype)[:, None]], 1)
    listed = logprobs.masked_fill(~known, -math.inf)
    classes = torch.cat([listed, tail.logsumexp(1, keepdim=True)], 1)
    present = ~(classes == -math.inf).all(1)
    # Rounded to half precision they no longer sum to 1.
    normalised = classes.masked_fill(~present[:, None], 0.0).log_softmax(1)
    return normalised.clamp(min=TEACHER_FLOOR).detach(), present


def _known(ids: torch.Tensor, shared: int) -> torch.Tensor:
    return (ids >= 0) & (ids < shared)


def _share_logs(maps: torch.Tensor) -> torch.Tensor:
    """Log of each cell's share; in an empty cell the slope of x log x is infinite and is left out."""
    return (maps / maps.sum(1, keepdim=True)).clamp(min=_LEAST_SHARE).log()


def _wide(values: torch.Tensor) -> torch.Tensor:
    """In float32; float64 stays."""
    return values if values.dtype == torch.float64 else values.float()
