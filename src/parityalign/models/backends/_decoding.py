"""The decoding loop: each prompt is processed once for all its replies, and finished replies leave the batch.

It runs inside transformers' `generate`, which prepares cache, positions and masks for each family but would keep
every row until the longest reply of the batch has ended.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from parityalign.models.backends._drawing import Draws
from parityalign.models.backends._generate import GenerationPasses
from parityalign.models.internals import DynamicLayer, DynamicSlidingWindowLayer

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
    return _layers(model) <= {DynamicLayer, DynamicSlidingWindowLayer}


def can_share_prefixes(model: PreTrainedModel) -> bool:
    """Whether prompts can be read in two parts: each token has a position that can be given, and sees all before it.

    In a sliding window the padding between the parts would take the place of tokens.
    """
    return _layers(model) <= {DynamicLayer} and "position_ids" in inspect.signature(model.forward).parameters


def _layers(model: PreTrainedModel) -> set[type]:
    """The kinds of layers of the model's cache."""
    return {type(layer) for layer in DynamicCache(config=model.config.get_text_config(decoder=True)).layers}


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
    ends = torch.tensor(generation_config.eos_token_id or [], device=input_ids.device)
    choosing, passes = can_choose_rows(model), GenerationPasses(model, state)
    logits = passes.first(input_ids, generation_config)
    if suffixes:
        passes.choose(suffixes.prefixes)
        logits = passes.more(suffixes.input_ids, suffixes.attention_mask)
    rows = torch.tensor(prompts, device=input_ids.device)
    if choosing:
        logits = logits[rows]
        passes.choose(rows)
    written = [Written() for _ in prompts]
    live, ended = list(range(len(prompts))), torch.zeros_like(rows, dtype=torch.bool)
    for left in reversed(range(generation_config.max_length - input_ids.shape[1])):
        tokens = draws.next(logits) if draws else logits.argmax(dim=-1)
        sums = logits.logsumexp(dim=-1)
        logprobs = (logits.gather(-1, tokens[:, None])[:, 0] - sums).masked_fill(ended, 0)
        broken = ~ended & ~sums.isfinite()
        ended = ended | torch.isin(tokens, ends)
        # All at once: each transfer waits for the device.
        step = torch.stack([tokens.double(), logprobs.double(), broken.double(), ended.double()]).tolist()
        if any(step[2]):
            raise NotFinite(live[step[2].index(1)])
        for row, token, logprob in zip(live, step[0], step[1], strict=True):
            written[row].tokens.append(int(token))
            written[row].logprob += logprob
        going = [place for place, has_ended in enumerate(step[3]) if not has_ended]
        if not left or not going:
            break
        if choosing and len(going) <= _STILL_GOING * len(live):
            rows = torch.tensor(going, device=input_ids.device)
            live, ended, tokens = [live[place] for place in going], ended[rows], tokens[rows]
            passes.choose(rows)
            if draws:
                draws.keep(rows)
        logits = passes.next(tokens)
    return written
