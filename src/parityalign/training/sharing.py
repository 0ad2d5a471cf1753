"""Whether examples about one picture may share a row: tried on real ones, since families take masks differently."""

from collections.abc import Sequence

import torch
from torch import nn

from parityalign.models import RowSharing, mean_difference, rounding_of, row_sharing
from parityalign.training.bundles import Bundle
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.losses._passes import Passes


def tried_sharing(model: nn.Module, batches: AnswerCollator, examples: Sequence[Example]) -> RowSharing | None:
    """How examples about one picture share a row of a student.

    None: no picture has several, or the student does not give them the log-probabilities there that it gives them in
    rows of their own, up to rounding.

    Args:
        model: The student.
        batches: Its collator.
        examples: All that it is trained and measured on.
    """
    sharing, tried = row_sharing(model), _about_one_picture(examples)
    return sharing if sharing and tried and _says_the_same(model, batches, sharing, tried) else None


def _about_one_picture(examples: Sequence[Example]) -> list[Example]:
    """Two examples about one picture, or one with a rationale; empty if there are none."""
    pictures: dict[str, list[Example]] = {}
    for example in examples:
        found = pictures.setdefault(example.image, [])
        found.append(example)
        if len(found) > 1 or example.rationale:
            return found
    return []


def _says_the_same(model: nn.Module, batches: AnswerCollator, sharing: RowSharing, tried: Sequence[Example]) -> bool:
    rows = batches.rows(batches.begin(tried))
    prefix = sharing.prefix([segment for row in rows for segment in row.segments])
    if not prefix:
        return False
    model.eval()
    try:
        apart = _logprobs(model, batches, [Bundle([row], 0, 0, 0) for row in rows], None)
        together = _logprobs(model, batches, [Bundle(rows, prefix, 0, 0)], sharing)
    except Exception:  # noqa: BLE001 - a family that takes no such masks may raise anything, and has rows apart then
        return False
    return mean_difference(apart, together) <= rounding_of(next(model.parameters()).dtype)


def _logprobs(
    model: nn.Module, batches: AnswerCollator, bundles: Sequence[Bundle], sharing: RowSharing | None
) -> torch.Tensor:
    """The log-probability of each labelled token, those of rationales last."""
    batch = batches.batch(bundles, sharing)
    passes = Passes(model, batch)
    parts = [passes, *([passes.part("explained")] if "explained" in batch else [])]

    def said(part: Passes) -> torch.Tensor:
        return part.each_token(lambda logits, place: logits.log_softmax(-1).gather(1, part.labels[place, None])[:, 0])

    with torch.no_grad():
        return torch.cat([said(part) for part in parts])
