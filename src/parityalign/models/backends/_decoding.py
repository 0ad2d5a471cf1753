"""The decoding loop: each prompt is processed once for all its replies, and finished replies leave the batch.

It runs inside transformers' `generate`, which prepares cache, positions and masks for each family but would keep
every row until the longest reply of the batch has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.generation.logits_process import LogitsProcessor, TopKLogitsWarper, TopPLogitsWarper

from parityalign.core import Decoding
from parityalign.models.backends._generate import GenerationPasses
from parityalign.models.internals import DynamicLayer, DynamicSlidingWindowLayer


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


class GumbelNoise(LogitsProcessor):
    """Turns greedy search into exact sampling that depends only on each row's own seed.

    The largest of `logits / temperature + Gumbel noise` is a draw from `softmax(logits / temperature)` (the
    Gumbel-max trick; Maddison, Tarlow and Minka, "A* Sampling", NeurIPS 2014, arXiv:1411.0030). Row by row the noise
    of step t is the t-th block of the row's own generator, so batch mates and resuming cannot change a draw. What
    `top_k` and then `top_p` leave of the tokens has the same noise.
    """

    def __init__(self, seeds: Sequence[int], decoding: Decoding, device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed % 2**63) for seed in seeds]
        self._temperature = decoding.temperature
        self._narrow: list[LogitsProcessor] = []
        if decoding.top_k:
            self._narrow.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1:
            self._narrow.append(TopPLogitsWarper(decoding.top_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The next token's scores (rows, vocabulary), of which greedy search takes the largest."""
        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        scores = scores.float() / self._temperature
        for narrow in self._narrow:
            scores = narrow(input_ids, scores)
        return scores - noise.log_()  # -log of an exponential variate is Gumbel

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps only these rows."""
        self._generators = [self._generators[row] for row in rows]


def can_choose_rows(model: PreTrainedModel) -> bool:
    """Whether rows of the model's cache can be dropped and repeated; states of recurrent layers cannot."""
    layers = DynamicCache(config=model.config.get_text_config(decoder=True)).layers
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)


def decode(
    model: Any,  # noqa: ANN401 - its own methods for generating are not declared on any public type
    input_ids: torch.Tensor,
    *,
    generation_config: GenerationConfig,
    prompts: Sequence[int],
    noise: GumbelNoise | None,
    **state: Any,  # noqa: ANN401 - the family's own
) -> list[Written]:
    """The `custom_generate` that replaces the loop of `generate`.

    Args:
        model: The model.
        input_ids: (prompts, tokens), padded at the left.
        generation_config: The most new tokens, and the end tokens.
        prompts: For each reply the row of its prompt.
        noise: A row for each reply; None: greedy.
        state: The inputs that `generate` prepared.

    Returns:
        Each reply.

    Raises:
        NotFinite: The logits are no numbers; the largest of them would be an arbitrary token.
    """
    for unused in ("logits_processor", "stopping_criteria"):  # replaced by `noise` and the end tokens
        state.pop(unused, None)
    ends = torch.tensor(generation_config.eos_token_id or [], device=input_ids.device)
    choosing, passes = can_choose_rows(model), GenerationPasses(model, state)
    logits, rows = passes.first(input_ids, generation_config), torch.tensor(prompts, device=input_ids.device)
    if choosing:
        logits = logits[rows]
        passes.choose(rows)
    written = [Written() for _ in prompts]
    live, ended = list(range(len(prompts))), torch.zeros_like(rows, dtype=torch.bool)
    for left in reversed(range(generation_config.max_length - input_ids.shape[1])):
        tokens = (noise(input_ids, logits) if noise else logits).argmax(dim=-1)
        chosen = logits.gather(-1, tokens[:, None])[:, 0]
        broken = ~ended & ~chosen.isfinite()  # argmax takes NaN for the largest
        if broken.any():
            raise NotFinite(live[int(broken.nonzero()[0])])
        logprobs = (chosen - logits.logsumexp(dim=-1)).masked_fill(ended, 0)
        for row, token, logprob in zip(live, tokens.tolist(), logprobs.tolist(), strict=True):
            written[row].tokens.append(token)
            written[row].logprob += logprob
        ended = ended | torch.isin(tokens, ends)
        if not left or ended.all():
            break
        if choosing and ended.any():
            rows = (~ended).nonzero()[:, 0]
            going = rows.tolist()
            live, ended, tokens = [live[row] for row in going], ended[rows], tokens[rows]
            passes.choose(rows)
            if noise:
                noise.keep(going)
        logits = passes.next(tokens)
    return written
