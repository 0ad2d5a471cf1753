"""Knowledge distillation: the divergence of the student's next-token distribution from the teacher's stored one.

Formulas, sources and checks: docs/objectives.md. Where both tokenizers split an answer alike, the teacher's likeliest
tokens and the mass of all others are compared; where they differ, stretches of text that are whole tokens for both;
if there is none, the probability of the whole answer.
"""

from typing import Literal

import torch

from parityalign.config import Settings
from parityalign.training.losses._alignment import answer_difference, group_logprobs
from parityalign.training.losses._divergences import DIVERGENCES, TopTokens, class_logprobs, token_divergence
from parityalign.training.losses._passes import Passes

NEEDS = frozenset({"distribution"})


class ConfidenceSettings(Settings):
    """How the student's next token is compared with the teacher's."""

    divergence: Literal["forward", "reverse", "jensen_shannon"] = "forward"
    """KL(teacher || student), KL(student || teacher), or the Jensen-Shannon divergence."""


SETTINGS = ConfidenceSettings


def losses(passes: Passes, divergence: str = "forward") -> torch.Tensor:
    """(N,) the divergence at each labelled token, in nats; 0 without a teacher's signal.

    Args:
        passes: The student's, over a batch with the teacher's distributions.
        divergence: One of `DIVERGENCES`.
    """
    batch, compared = passes.batch, DIVERGENCES[divergence]
    teacher = TopTokens(batch["top_ids"], batch["top_logprobs"], batch["tail"])

    def loss_of(logits: torch.Tensor, place: slice) -> torch.Tensor:
        shared = logits.shape[-1]  # ids that the student lacks were left out when the batch was made
        known = token_divergence(logits, teacher[place], shared=shared, divergence=compared)
        own = class_logprobs(logits, passes.labels[place, None], shared)
        return torch.cat([known[:, None], own], dim=1)

    found = passes.each_token(loss_of)
    known, own = found[:, 0], found[:, 1:]
    members = batch.get("members")
    if members is not None and len(members):
        of_group = compared(batch["member_logprobs"], group_logprobs(own, members))
        known = known.index_add(0, members[:, 0], of_group)
    if "characters" in batch:
        known = known + _whole_answers(passes, own[:, 0])
    return known


def _whole_answers(passes: Passes, logprobs: torch.Tensor) -> torch.Tensor:
    """(N,) the difference of whole answers' probabilities, at the first token of each."""
    batch = passes.batch
    total = logprobs.new_zeros(len(passes.lengths)).index_add(0, passes.rows, logprobs)
    differs = answer_difference(total, batch["whole_logprob"], batch["characters"])
    first = torch.cat([passes.rows.new_ones(1), passes.rows.diff()]).bool() if len(logprobs) else passes.rows.bool()
    return torch.where(first, torch.where(batch["characters"] > 0, differs, 0.0)[passes.rows], 0.0)
