"""The student's passes over one batch: each is made once, however many terms of a loss ask for what comes of it.

A batch is a mapping of tensors: what the model takes, `labels` (rows, tokens), and what terms need besides (`EXTRAS`):

| key | shape | holds |
|---|---|---|
| `weight` | (rows,) | how much a pair counts; left out: 1 |
| `top_ids`, `top_logprobs`, `tail` | (N, k), (N, k), (N,) | the teacher's distribution, in the student's ids |
| `members`, `member_logprobs` | (groups, longest), (groups, 2) | texts that the two tokenizers cut differently |
| `whole_logprob`, `characters` | (rows,) | of answers that compare as a whole only; 0 characters elsewhere |
| `places` | (rows, cells) | the teacher's map of the picture; all zeros where there is none |
| `image_tokens`, `spread` | (rows, places), (rows, places, cells) | the student's image tokens, and the cells of each |
| `view` | mapping | the student's inputs for another view of the same pictures |
| `explained` | mapping | inputs and `labels` of rationales; `explains` (its rows,) says of which row each is |

N counts the labelled tokens row by row. Where nothing is known of the teacher, and behind a row's listed tokens,
`top_ids` is -1 and `top_logprobs` minus infinity.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn

from parityalign.models import IGNORE_INDEX, AttentionRecorder, before_answers
from parityalign.training.losses._chunks import over_chunks
from parityalign.training.losses._states import asked_for, states_before_head

EXTRAS = frozenset(
    (
        "weight",
        "top_ids",
        "top_logprobs",
        "tail",
        "members",
        "member_logprobs",
        "whole_logprob",
        "characters",
        "places",
        "image_tokens",
        "spread",
        "view",
        "explained",
        "explains",
    )
)
MOST_LOGITS = 2**25
"""Logits that may be in memory at once; more are computed for the labelled tokens alone, and in chunks."""

TokenLoss = Callable[[torch.Tensor, slice], torch.Tensor]
"""(logits (n, vocabulary), their place among the labelled tokens) -> (n, ...)."""


class Passes:
    """One batch on its way through a student.

    Attributes:
        batch: What there is to learn from.
        labels: (N,) the answers' tokens, row by row.
        rows: (N,) the row of each.
        lengths: (rows,) how many of them each row has.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        recorder: AttentionRecorder | None = None,
        *,
        recorded: bool = True,
    ) -> None:
        """A batch of which nothing was computed yet.

        Args:
            model: A vision-language model of transformers.
            batch: See the module.
            recorder: Records what the model attends to; None: no term asks.
            recorded: Whether it does so in this pass.
        """
        self.batch = batch
        self._model = model
        self._recorder = recorder
        self._recorded = recorded and recorder is not None
        self._seen: torch.Tensor | None = None
        self._parts: dict[str, Passes] = {}
        labelled = batch["labels"] != IGNORE_INDEX
        self.labels: torch.Tensor = batch["labels"][labelled]
        self.rows: torch.Tensor = labelled.nonzero()[:, 0]
        self.lengths: torch.Tensor = labelled.sum(dim=1)

    def part(self, key: str) -> "Passes":
        """The passes over a batch within this one: `view` or `explained`."""
        if key not in self._parts:
            self._parts[key] = Passes(self._model, self.batch[key], self._recorder, recorded=False)
        return self._parts[key]

    def each_token(self, loss_of: TokenLoss, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """What `loss_of` makes of the logits that belong to each labelled token: (N, ...).

        Logits that are too many for memory are made in chunks, once for each term that asks.

        Args:
            loss_of: Of logits, and their place among those that are asked for.
            chosen: (n,) the labelled tokens that are asked for; None: all.
        """
        known = self._outputs
        if isinstance(known, tuple):
            states, head = known
            states = states if chosen is None else states[chosen]
            return over_chunks(states, head, loss_of, max(1, MOST_LOGITS // head.out_features))
        known = known if chosen is None else known[chosen]
        return loss_of(known, slice(0, len(known)))

    @property
    def attention(self) -> torch.Tensor:
        """(rows, tokens): how much the answer's own tokens attend to each token of their row.

        See `AttentionRecorder.mean_over_answers`.
        """
        _ = self._outputs
        if self._seen is None:
            raise ValueError("no term said that it needs attention")
        return self._seen

    @cached_property
    def _outputs(self) -> torch.Tensor | tuple[torch.Tensor, nn.Linear]:
        """Logits (N, vocabulary) in float32; where they are too many, states (N, H) and the head they go through."""
        inputs = {key: value for key, value in self.batch.items() if key not in EXTRAS}
        if self._recorder is not None:
            self._recorder.select(before_answers(self.batch["labels"]) if self._recorded else None)
        asked, head = asked_for(inputs), _head(self._model)
        if head is not None and asked.labelled.numel() * head.out_features > MOST_LOGITS:
            states = states_before_head(self._model, head, asked)
            if states is not None:
                self._note_attention()
                return states, head
        logits: torch.Tensor = self._model(**asked.inputs).logits[:, -asked.columns - 1 : -1]
        self._note_attention()
        return logits[asked.labelled].float()

    def _note_attention(self) -> None:
        """Takes what was seen in this pass, before another one is made."""
        if self._recorder is not None and self._recorded:
            self._seen = self._recorder.mean_over_answers(self.lengths)


def _head(model: nn.Module) -> nn.Linear | None:
    """The output head, where it is a linear layer whose work can be put off."""
    found = getattr(model, "get_output_embeddings", lambda: None)()
    return found if isinstance(found, nn.Linear) else None
