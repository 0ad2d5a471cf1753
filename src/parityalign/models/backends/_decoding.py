"""The decoding loop: each prompt is processed once for all its replies, and finished replies leave the batch.

It runs inside transformers' `generate`, which prepares cache, positions and masks for each family but would keep
every row until the longest reply of the batch has ended.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from parityalign.models.backends._drawing import Draws
from parityalign.models.backends._generate import GenerationPasses
from parityalign.models.internals import DynamicLayer, DynamicSlidingWindowLayer, cached_layers

_STILL_GOING = 0.875
"""Rows that have ended leave when no larger share is still going: each leaving copies the cache."""


class NotFinite(ArithmeticError):
    """The logits of a reply's next token hold no largest number: they are NaN, or infinite."""

    def __init__(self, row: int) -> None:
        """Takes the place of the reply in the batch."""
        super().__init__(row)
        self.row = row


@dataclass
class Written:
    """A reply as it is written."""

    tokens: list[int] = field(default_factory=list)
    """Those after an end token are meaningless."""
    logprob: float = 0.0
    """Natural log-probability, whatever narrowed the draw, summed over the tokens up to an end token and with it."""


def can_choose_rows(model: PreTrainedModel) -> bool:
    """Whether rows of the model's cache can be dropped and repeated; states of recurrent layers cannot."""
    return {*map(type, cached_layers(model.config))} <= {DynamicLayer, DynamicSlidingWindowLayer}


def can_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether prompts can be read in two parts: each token has a position that can be given, and sees all before it.

    In a sliding window the padding between the parts would take the place of tokens.
    """
    keeps_all = {*map(type, cached_layers(model.config))} <= {DynamicLayer}
    return keeps_all and "position_ids" in inspect.signature(model.forward).parameters


@dataclass(frozen=True)
class Suffixes:
    """What follows the prefixes that several prompts share."""

    prefixes: torch.Tensor
    """(prompts,): the row of each prompt's prefix."""
    input_ids: torch.Tensor
    """(prompts, tokens), padded at the left."""
    attention_mask: torch.Tensor
    """(prompts, tokens)"""


def decode(
    model: Any,  # noqa: ANN401 - its own methods for generating are not declared on any public type
    input_ids: torch.Tensor,
    *,
    generation_config: GenerationConfig,
    prompts: Sequence[int],
    draws: Draws | None,
    suffixes: Suffixes | None = None,
    **state: Any,  # noqa: ANN401 - the family's own
) -> list[Written]:
    """The `custom_generate` that replaces the loop of `generate`.

    Args:
        model: The model.
        input_ids: (prompts, tokens), padded at the left; with `suffixes` only the prefixes.
        generation_config: The most new tokens, and the end tokens.
        prompts: For each reply the row of its prompt.
        draws: A row for each reply; None: greedy.
        suffixes: The rest of the prompts.
        state: The inputs that `generate` prepared.

    Returns:
        Each reply.

    Raises:
        NotFinite: The logits are no numbers; the largest of them would be an arbitrary token.
    """
    for unused in ("logits_processor", "stopping_criteria"):  # replaced by `draws` and the end tokens
        state.pop(unused, None)
    choosing, passes = can_choose_rows(model), GenerationPasses(model, state)
    logits = passes.first(input_ids, generation_config)
    if suffixes:
        passes.choose(suffixes.prefixes)
        logits = passes.more(suffixes.input_ids, suffixes.attention_mask)
    if choosing:
        rows = torch.tensor(prompts, device=input_ids.device)
        logits = logits[rows]
        passes.choose(rows)
    batch = _Batch(len(prompts), torch.tensor(generation_config.eos_token_id or [], device=input_ids.device))
    for left in reversed(range(generation_config.max_length - input_ids.shape[1])):
        tokens = draws.next(logits) if draws else logits.argmax(dim=-1)
        going = batch.add(tokens, logits)
        if not left or not going:
            break
        if choosing and len(going) <= _STILL_GOING * len(batch.live):
            rows = torch.tensor(going, device=input_ids.device)
            batch.keep(going, rows)
            passes.choose(rows)
            if draws:
                draws.keep(rows)
            tokens = tokens[rows]
        logits = passes.next(tokens)
    return batch.written


class _Batch:
    """The replies that are being written.

    Attributes:
        written: All of them.
        live: Of each row that is still there, the place of its reply.
    """

    def __init__(self, count: int, ends: torch.Tensor) -> None:
        self.written = [Written() for _ in range(count)]
        self.live = list(range(count))
        self._ends = ends
        self._ended = torch.zeros(count, dtype=torch.bool, device=ends.device)

    def add(self, tokens: torch.Tensor, logits: torch.Tensor) -> list[int]:
        """Adds the next token of each row (rows,), drawn by its logits (rows, vocabulary).

        Returns:
            The rows that go on.

        Raises:
            NotFinite: The logits of one of them are no numbers.
        """
        sums = logits.logsumexp(dim=-1)
        logprobs = (logits.gather(-1, tokens[:, None])[:, 0] - sums).masked_fill(self._ended, 0)
        broken = ~self._ended & ~sums.isfinite()
        self._ended = self._ended | torch.isin(tokens, self._ends)
        # All at once: each transfer waits for the device.
        told = torch.stack([each.double() for each in (tokens, logprobs, broken, self._ended)]).T.tolist()
        for place, (token, logprob, is_broken, _) in zip(self.live, told, strict=True):
            if is_broken:
                raise NotFinite(place)
            self.written[place].tokens.append(int(token))
            self.written[place].logprob += logprob
        return [row for row, (*_, has_ended) in enumerate(told) if not has_ended]

    def keep(self, going: Sequence[int], rows: torch.Tensor) -> None:
        """Keeps only these rows, which are given twice: here and on the device."""
        self.live, self._ended = [self.live[row] for row in going], self._ended[rows]
