"""Context distillation: the divergence of the student's answers with and without the teacher's rationale before them.

Formula, source and checks: docs/objectives.md.
"""

import torch

from parityalign.training.losses._divergences import view_divergence
from parityalign.training.losses._passes import Passes

NEEDS = frozenset({"rationale"})


def losses(passes: Passes) -> torch.Tensor:
    """(N,) the Jensen-Shannon divergence of the next token in the two contexts, in nats; 0 without a rationale."""
    if "explained" not in passes.batch:
        return torch.zeros(len(passes.labels), device=passes.labels.device)
    explained = passes.part("explained")
    here, there = _same_tokens(passes, explained, passes.batch["explained"]["explains"])
    after = explained.each_token(lambda logits, _: logits, there)
    apart = passes.each_token(lambda logits, place: view_divergence(logits, after[place]), here)
    return torch.zeros(len(passes.labels), device=apart.device).index_put((here,), apart)


def _same_tokens(passes: Passes, explained: Passes, explains: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n,) indices of answer tokens and (n,) of the same tokens at the ends of the rows with rationales.

    A tokenizer that merges a space into the next word splits an answer's beginning differently after a text.
    """
    here: list[int] = []
    there: list[int] = []
    ends, explained_ends = passes.lengths.cumsum(0), explained.lengths.cumsum(0)
    for row, end in zip(explains.tolist(), explained_ends.tolist(), strict=True):
        count, last = int(passes.lengths[row]), int(ends[row])
        same = passes.labels[last - count : last] == explained.labels[end - count : end]
        tail = int(same.flip(0).int().cumprod(0).sum())
        here += range(last - tail, last)
        there += range(end - tail, end)
    numbers = passes.labels.new_tensor
    return numbers(here), numbers(there)
