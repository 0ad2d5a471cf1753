"""What is trained: a tower that notices, then a whole model that talks. Each is a module that gives its loss."""

import torch
from torch.nn import functional
from transformers import FastVlmForConditionalGeneration

from demo_models.schooling import SightBatch, TalkBatch, visible


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes to the processor's scale (mean and deviation 0.5), channels last, which convolutions on a CPU like."""
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


class Noticing(torch.nn.Module):
    """The tower with a head that goes over its map for each cue and names what it finds there; gives the loss.

    The head is one layer of cross-attention, the first thing that a language model can do with image tokens. A tower
    under it learns features that are *found* by a cue ("mon", "red"). Under a head on the mean and the maximum of the
    map it learnt to list words and values, but a language model could never tell which belongs to which (docs/log.md).
    """

    def __init__(self, tower: torch.nn.Module, width: int, cues: int, names: int) -> None:
        super().__init__()
        self.tower = tower
        self.cues = torch.nn.Embedding(cues, width)
        self.look = torch.nn.MultiheadAttention(width, 4, batch_first=True)
        self.think = torch.nn.Sequential(
            torch.nn.LayerNorm(width),
            torch.nn.Linear(width, 2 * width),
            torch.nn.GELU(),
            torch.nn.Linear(2 * width, width),
        )
        self.before, self.after = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.name = torch.nn.Linear(width, names)

    def scores(self, pixels: torch.Tensor, cues: torch.Tensor) -> torch.Tensor:
        """(pictures, 3, SIDE, SIDE) bytes, (pictures, cues) numbers -> (pictures, cues, names) logits."""
        seen = self.before(self.tower(normalised(pixels)).last_hidden_state.flatten(2).transpose(1, 2))
        asked = self.cues(cues)
        found = asked + self.look(asked, seen, seen, need_weights=False)[0]
        scores: torch.Tensor = self.name(self.after(found + self.think(found)))
        return scores.float()

    def forward(self, batch: SightBatch) -> torch.Tensor:
        """The cross-entropy of a batch, mean over its cues."""
        logs = functional.log_softmax(self.scores(batch.pixels, batch.cues), dim=2)
        return -(logs * batch.names).sum() / batch.names.sum()


class Talking(torch.nn.Module):
    """The whole model; gives the mean negative log-likelihood of the answers' tokens.

    The tower has learnt before and is left alone. Each question sees only the picture and itself, so a packed row
    teaches what its questions would teach alone.
    """

    def __init__(self, model: FastVlmForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        model.model.vision_tower.requires_grad_(False)

    def train(self, mode: bool = True) -> "Talking":
        """The tower stays as it is: what it notices must not drift with the statistics of small batches."""
        super().train(mode)
        self.model.model.vision_tower.train(False)
        return self

    def forward(self, batch: TalkBatch) -> torch.Tensor:
        """The loss of a batch."""
        model = self.model
        seen = model.get_image_features(pixel_values=normalised(batch.pixels)).pooler_output
        embedded = model.get_input_embeddings()(batch.tokens)
        places = batch.tokens == model.config.image_token_id
        embedded = embedded.masked_scatter(places[..., None], seen.to(embedded.dtype))
        hidden = model.model.language_model(
            inputs_embeds=embedded,
            attention_mask=visible(batch.segments).log().to(embedded.dtype),
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        wanted = batch.labels[:, 1:] != -100
        logits = model.lm_head(hidden[:, :-1][wanted])
        return functional.cross_entropy(logits.float(), batch.labels[:, 1:][wanted])


def pass_on(model: FastVlmForConditionalGeneration, pixels: torch.Tensor) -> None:
    """Starts the projector so that it passes the tower's features on, each channel at the same spread around zero.

    What a cue finds in the features it then finds in the language model too; behind a random projector, or one that
    whitens, it is found much later (docs/log.md).

    Args:
        model: Whose tower has been trained; its projector's weights are set.
        pixels: (pictures, 3, SIDE, SIDE) bytes, enough to estimate the spread of each channel.
    """
    first, second = model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2
    model.train(False)
    with torch.no_grad():
        tokens = model.model.vision_tower(normalised(pixels)).last_hidden_state.flatten(2).transpose(1, 2).flatten(0, 1)
        # Features are never negative, and from 2 on GELU is nearly the identity.
        first.weight.copy_(torch.diag(2 / tokens.std(0).clamp_min(1e-2)))
        torch.nn.init.zeros_(first.bias)
        torch.nn.init.orthogonal_(second.weight, gain=0.5)
        second.bias.copy_(-second.weight @ functional.gelu(first(tokens)).mean(0))
