"""Asking a model, our way and the way of plain transformers: the same pictures, prompts and number of tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from parityalign.config import LoadingSettings
from parityalign.core import Decoding, PictureRoom, Request, keeping_pictures
from parityalign.models.backends._hf_model import HFModel, load_hf
from parityalign.models.encoding import Prompter
from parityalign.models.loading import open_processor
from parityalign.tasks import load_task
from real_size.measuring import busy_share, seconds, watched

MEGAPIXEL = 1003520
"""The limit of pixels where a family has none of its own that is usable: about a megapixel."""
PLAIN_BATCH = 16
"""Pictures in a batch of plain transformers."""
_MOST_KEPT = 20 * 10**9
"""Bytes of prepared pictures, as a run keeps them unless told otherwise."""
STAGE_BATCH = 256
"""Questions in a batch of a stage."""


def limit(model: Path) -> int | None:
    """The limit of pixels of both ways; SmolVLM's own is twelve tiles and the whole picture."""
    return None if model.name.startswith("smolvlm") else MEGAPIXEL


def annotate(model: Path, paths: Sequence[Path], *, draws: int, tokens: int) -> dict[str, Any]:
    """So many draws on each picture: ours, and `generate` with as many sequences returned."""
    prompt = load_task("textvqa").annotate_prompt
    requests = [
        Request(str(path), prompt, draws * number + draw) for number, path in enumerate(paths) for draw in range(draws)
    ]
    prompts = [(path, prompt) for path in paths]
    return _both(model, requests, prompts, Decoding(tokens, 1.0), draws)


def identify(
    model: Path, paths: Sequence[Path], *, questions: int, tokens: int, temperature: float = 0.0, plain_part: int = 1
) -> dict[str, Any]:
    """So many answers about each picture, each to a question of its own; of them plain `generate` gives a part.

    Asked once more in the end, about pictures that are kept by then, as later stages of a run find them.
    """
    task = load_task("textvqa")
    prompts = [
        (path, task.answer_prompt.format(question=f"What is the number of square {number} of picture {place}?"))
        for place, path in enumerate(paths)
        for number in range(questions)
    ]
    requests = [Request(str(path), prompt, number) for number, (path, prompt) in enumerate(prompts)]
    with keeping_pictures(PictureRoom(model.parent / f"kept-{model.name}", _MOST_KEPT, print)):
        return _both(
            model, requests, prompts[: len(prompts) // plain_part], Decoding(tokens, temperature), 1, again=True
        )


def _both(
    folder: Path,
    requests: list[Request],
    prompts: list[tuple[Path, str]],
    decoding: Decoding,
    draws: int,
    *,
    again: bool = False,
) -> dict[str, Any]:
    loading = LoadingSettings(max_pixels=limit(folder))
    model = load_hf(str(folder), loading)
    plain = Plain(model, str(folder), loading)
    model.generate(requests[: 2 * draws], Decoding(4, decoding.temperature))  # both ways are warm
    plain.generate(prompts[:2], Decoding(4, decoding.temperature), draws)
    ours, busy = _timed(model, requests, decoding)
    theirs = seconds(lambda: plain.generate(prompts, decoding, draws)) * len(requests) / (len(prompts) * draws)
    told = {"replies": len(requests), "ours_s": ours, "plain_s": theirs, "ratio": ours / theirs, "busy": busy}
    if again:
        told["again_s"], told["again_busy"] = _timed(model, requests, decoding)
    model.close()
    return told


def _timed(model: HFModel, requests: Sequence[Request], decoding: Decoding) -> tuple[float, float | None]:
    """Seconds, and the share of them in which the GPU was busy."""
    with watched() as samples:
        took = seconds(lambda: _in_batches(model, requests, decoding))
        return took, busy_share(samples)


def _in_batches(model: HFModel, requests: Sequence[Request], decoding: Decoding) -> None:
    """Asks as a stage does: a batch, while the pictures of the next are being prepared."""
    batches = [requests[start : start + STAGE_BATCH] for start in range(0, len(requests), STAGE_BATCH)]
    for batch, following in zip(batches, [*batches[1:], []], strict=True):
        model.expect(following)
        model.generate(batch, decoding)


class Plain:
    """The same weights asked by `generate`, in batches as the pictures come."""

    def __init__(self, model: HFModel, folder: str, loading: LoadingSettings) -> None:
        self._model: Any = model._model
        self._processor: Any = open_processor(folder, loading)
        self._chat = Prompter(self._processor).chat

    def generate(self, prompts: Sequence[tuple[Path, str]], decoding: Decoding, draws: int) -> None:
        """Replies to every prompt, which nobody reads."""
        how = {
            "do_sample": decoding.temperature > 0,
            "max_new_tokens": decoding.max_new_tokens,
            "num_return_sequences": draws,
        }
        for start in range(0, len(prompts), PLAIN_BATCH):
            part = prompts[start : start + PLAIN_BATCH]
            inputs = self._processor(
                images=[[Image.open(path).convert("RGB")] for path, _ in part],
                text=[self._chat(prompt) for _, prompt in part],
                padding=True,
                padding_side="left",
                return_tensors="pt",
            ).to(self._model.device, self._model.dtype)
            with torch.inference_mode():
                self._model.generate(**inputs, **how)
