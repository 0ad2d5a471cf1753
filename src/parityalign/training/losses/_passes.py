"""The student's forward passes over one batch, each run once however many terms of the loss use it.

A batch is a mapping of tensors: the model's inputs, `labels` (rows, tokens), and those of the terms (`EXTRAS`):

| key | shape | holds |
|---|---|---|
| `weight` | (examples,) | the pair's weight; default 1 |
| `top_ids`, `top_logprobs`, `tail` | (N, k), (N, k), (N,) | the teacher's distribution, in the student's ids |
| `members`, `member_logprobs` | (groups, longest), (groups, 2) | texts that the two tokenizers split differently |
| `whole_logprob`, `characters` | (examples,) | of answers that are compared as a whole; else 0 characters |
| `places` | (examples, cells) | the teacher's attention map; zeros if there is none |
| `image_tokens`, `spread` | (examples, places), (examples, places, cells) | its image tokens, their shares of cells |
| `tower` | object | what a frozen tower makes of the pictures, in place of their pixels (`training/tower.py`) |
| `view` | mapping | the student's inputs for an augmented view of the pictures |
| `explained` | mapping | inputs and `labels` of rationales; `explains` (rationales,) is the example of each |
| `lengths` | (examples,) | the labelled tokens of each example, where examples share rows |

N counts the labelled tokens example by example. Where nothing is known of the teacher, and behind a token's listed
ones, `top_ids` is -1 and `top_logprobs` minus infinity.

Each example has a row, unless those about one picture share one (`models/shared_rows.py`). Then rationales stand in the
same rows, and `explained` holds no inputs, but labels (rows, tokens) and `lengths` of its own.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import nn

from parityalign.models import IGNORE_INDEX, AttentionRecorder, before_answers
from parityalign.training.losses._chunks import over_chunks
from parityalign.training.losses._states import asked_for, states_before_head
from parityalign.training.tower import TowerOutputs

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
        "tower",
        "view",
        "explained",
        "explains",
        "lengths",
    )
)
MOST_LOGITS = 2**25
"""Logits that may be in memory at once; more are computed for the labelled tokens alone, and in chunks."""

TokenLoss = Callable[[torch.Tensor, slice], torch.Tensor]
"""(logits (n, vocabulary), their indices among the labelled tokens) -> (n, ...)."""


class Passes:
    """The passes of one batch through a student.

    Attributes:
        batch: The batch.
        labels: (N,) the answers' tokens, example by example.
        rows: (N,) the example of each.
        lengths: (examples,) number of labelled tokens of each example.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        recorder: AttentionRecorder | None = None,
        *,
        recorded: bool = True,
        within: "Passes | None" = None,
    ) -> None:
        """Computes nothing yet.

        Args:
            model: A vision-language model of transformers.
            batch: See the module's docstring.
            recorder: Records the model's attention; None: no term needs it.
            recorded: Whether this pass is recorded.
            within: The passes that compute the outputs of this batch too; None: it has a pass of its own.
        """
        self.batch = batch
        self._model = model
        self._recorder = recorder
        self._recorded = recorded and recorder is not None
        self._within = within
        self._seen: torch.Tensor | None = None
        self._parts: dict[str, Passes] = {}
        labelled = batch["labels"] != IGNORE_INDEX
        self.labels: torch.Tensor = batch["labels"][labelled]
        self.lengths: torch.Tensor = batch["lengths"] if "lengths" in batch else labelled.sum(dim=1)
        numbers = torch.arange(len(self.lengths), device=self.labels.device)
        self.rows: torch.Tensor = numbers.repeat_interleave(self.lengths)

    def part(self, key: str) -> "Passes":
        """The passes of a nested batch: `view` or `explained`."""
        batch = self.batch[key]
        if "input_ids" not in batch:  # not kept: two that know each other would keep the pass's tensors alive
            return Passes(self._model, batch, recorded=False, within=self)
        if key not in self._parts:
            self._parts[key] = Passes(self._model, batch, self._recorder, recorded=False)
        return self._parts[key]

    def each_token(self, loss_of: TokenLoss, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Applies `loss_of` to the logits of each labelled token: (N, ...).

        If the logits are too many for memory, they are computed in chunks, again for each term.

        Args:
            loss_of: (logits, their indices among the chosen tokens) -> losses.
            chosen: (n,) the chosen labelled tokens; None: all.
        """
        known, places = (self._within or self)._outputs, self._places
        if chosen is not None:
            places = chosen if places is None else places[chosen]
        if isinstance(known, tuple):
            states, head = known
            states = states if places is None else states[places]
            here = self.labels.device  # the head of a student on several devices may be on another

            def loss_here(logits: torch.Tensor, place: slice) -> torch.Tensor:
                return loss_of(logits.to(here), place)

            return over_chunks(states, head, loss_here, max(1, MOST_LOGITS // head.out_features))
        known = known if places is None else known[places]
        return loss_of(known, slice(0, len(known)))

    @property
    def attention(self) -> torch.Tensor:
        """(examples, tokens): how much the answer's own tokens attend to each token of their row.

        See `AttentionRecorder.mean_over_answers`.
        """
        _ = self._outputs
        if self._seen is None:
            raise ValueError("no term declares that it needs attention")
        return self._seen

    @cached_property
    def _all_labels(self) -> torch.Tensor:
        """(rows, tokens) labels of all that the pass is asked for: rationales that share its rows are, too."""
        inside = self.batch.get("explained", self.batch)
        labels: torch.Tensor = self.batch["labels"]
        return labels if "input_ids" in inside else torch.where(labels == IGNORE_INDEX, inside["labels"], labels)

    @cached_property
    def _places(self) -> torch.Tensor | None:
        """(N,) the places of the labelled tokens among the outputs of the pass; None: they are all."""
        asked = (self._within or self)._all_labels
        if asked is self.batch["labels"]:
            return None
        mine: torch.Tensor = self.batch["labels"][asked != IGNORE_INDEX] != IGNORE_INDEX
        return mine.nonzero()[:, 0]

    @cached_property
    def _outputs(self) -> torch.Tensor | tuple[torch.Tensor, nn.Linear]:
        """Logits (tokens, vocabulary) in float32; if they are too many, hidden states (tokens, H) and the head."""
        inputs = {key: value for key, value in self.batch.items() if key not in EXTRAS}
        tower: TowerOutputs | None = self.batch.get("tower")
        if tower is None:
            return self._of(inputs)
        with tower.shown_to(self._model) as more:
            return self._of(inputs | more)

    def _of(self, inputs: dict[str, Any]) -> torch.Tensor | tuple[torch.Tensor, nn.Linear]:
        if self._recorder is not None:
            self._recorder.select(before_answers(self.batch["labels"]) if self._recorded else None)
        asked, head = asked_for({**inputs, "labels": self._all_labels}), _head(self._model)
        # Between the answers of rows that are shared stand whole questions, whose logits nobody needs.
        few = "lengths" in self.batch
        if head is not None and (few or asked.labelled.numel() * head.out_features > MOST_LOGITS):
            states = states_before_head(self._model, head, asked)
            if states is not None:
                self._note_attention()
                return head(states).float() if len(states) * head.out_features <= MOST_LOGITS else (states, head)
        logits: torch.Tensor = self._model(**asked.inputs).logits[:, -asked.columns - 1 : -1]
        self._note_attention()
        return logits[asked.labelled].float()

    def _note_attention(self) -> None:
        """Takes the attention of this pass, before another one runs."""
        if self._recorder is not None and self._recorded:
            self._seen = self._recorder.mean_over_answers(self.lengths)


def _head(model: nn.Module) -> nn.Linear | None:
    """The output head, if it is a linear layer that can be applied later."""
    found = getattr(model, "get_output_embeddings", lambda: None)()
    return found if isinstance(found, nn.Linear) else None
