"""The student agrees with itself: the divergence of its answers with and without the teacher's explanation before them.

Formula, source and checks: docs/objectives.md.
"""

import torch

from parityalign.objectives._divergences import view_divergence
from parityalign.objectives._passes import Passes

NEEDS = frozenset({"explanation"})


def losses(passes: Passes) -> torch.Tensor:
    """(N,) the Jensen-Shannon divergence of the next token in the two places, in nats; 0 where there is only one."""
    if "explained" not in passes.batch:
        return torch.zeros(len(passes.labels), device=passes.labels.device)
    explained = passes.part("explained")
    places = _same_tokens(passes, explained, passes.batch["explained"]["explains"])
    after = explained.each_token(lambda logits, _: logits)

    def loss_of(logits: torch.Tensor, place: slice) -> torch.Tensor:
        found = places[place]
        return torch.where(found >= 0, view_divergence(logits, after[found.clamp(min=0)]), 0.0)

    return passes.each_token(loss_of)


def _same_tokens(passes: Passes, explained: Passes, explains: torch.Tensor) -> torch.Tensor:
    """(N,) where among the explained rows' tokens each of the answers' stands again; -1: nowhere.

    An answer stands at the end of its explanation, unless a tokenizer cuts it there in other tokens.
    """
    places = torch.full_like(passes.labels, -1)
    ends, explained_ends = passes.lengths.cumsum(0), explained.lengths.cumsum(0)
    for row, end in zip(explains.tolist(), explained_ends.tolist(), strict=True):
        count, last = int(passes.lengths[row]), int(ends[row])
        if torch.equal(explained.labels[end - count : end], passes.labels[last - count : last]):
            places[last - count : last] = torch.arange(end - count, end, device=places.device)
    return places
