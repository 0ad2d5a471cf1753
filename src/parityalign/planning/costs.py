"""Estimates time, memory and money from counts of parameters and tokens.

A forward pass takes 2 operations per parameter and token; a backward pass as many for the gradient of the inputs and
as many for that of the weights (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Attention between tokens is left
out: at the lengths here it adds little.
"""

import math
from typing import NamedTuple

from parityalign.config import LevelSettings, LoadingSettings, ServerSettings
from parityalign.planning.published import Device
from parityalign.planning.sizes import Pace, Size, Stack
from parityalign.planning.works import Work

USED = 0.4
"""Share of a device's peak operations that large batches reach."""
STREAMED = 0.6
"""Share of its memory bandwidth that token-by-token decoding reaches."""
STEP_SECONDS = {True: 0.025, False: 0.002}
"""Minimum seconds of one step of `generate`, on a GPU (dominated by kernel launches) and on a CPU."""
RUNTIME_BYTES = {True: 1.0e9, False: 0.5e9}
"""Bytes that PyTorch and the device's libraries use before a model is loaded."""
CPU_TOKENS, MOST_TOKENS, SHARE_OF_FREE, HIDDEN_STATES = 16384, 131_072, 0.5, 24
"""Tokens and patches in a batch; the same numbers as in `models/backends/_batches.py`, which explains them."""
MOST_LOGITS = 2**25
"""Logits of one training pass; more are computed in chunks. The same number as in `training/losses/_passes.py`."""
FLOAT32, HALF = 4, 2
_QUANTISED = {"8bit": 1.0, "4bit": 0.516}
"""Bytes per weight; in 4 bits including its share of the doubly quantised scales (Dettmers et al. 2023, section 3)."""
_OPTIMISER = 8
"""Bytes that Adam keeps of each trained parameter: two averages in float32."""


class Way(NamedTuple):
    """How the student is trained, as far as it affects time and memory."""

    method: str
    """`full`, `lora` or `qlora`."""
    checkpointing: bool
    """Whether activations are recomputed in the backward pass."""
    rows: int
    """Micro-batch size."""
    half: bool
    """Whether it multiplies in bfloat16."""
    tower: bool
    """Whether the vision tower learns."""
    language: bool
    """Whether the language model learns."""


def way_of(level: LevelSettings, device: Device, work: Work, size: Size) -> Way:
    """How `level` trains a student on a device: with the largest micro-batch that fits, halved as in training."""
    way = _wished(level, device)
    while way.rows > 1 and levelling_memory(work, size, way, level, device) > device.memory:
        way = way._replace(rows=way.rows // 2)
    return way


def _wished(level: LevelSettings, device: Device) -> Way:
    return Way(
        method=level.method,
        checkpointing=level.gradient_checkpointing,
        rows=min(level.batch_size, level.micro_batch_size or level.batch_size),
        half=device.is_gpu,
        tower=bool(level.lr_multipliers.vision),
        language=bool(level.lr_multipliers.language),
    )


def asking_seconds(work: Work, size: Size, loading: LoadingSettings, device: Device) -> float:
    """Seconds to process the prompts and to generate or score the replies."""
    read = _forward(work, size) - 2.0 * work.again * _once(work, size)
    if work.given:
        return read / (device.operations * USED)
    batches = math.ceil(work.requests / rows_per_batch(work, size, loading, device))
    step = max(STEP_SECONDS[device.is_gpu], weights(size, loading, device) / (device.bandwidth * STREAMED))
    return read / (device.operations * USED) + batches * work.reply_tokens / work.requests * step


def levelling_seconds(work: Work, size: Size, way: Way, device: Device) -> float:
    """Seconds of training, including evaluations of the held-out pairs."""
    once, tower = _forward(work, size), 2.0 * size.vision.parameters * work.patches
    passes = _passes(way.method, way.checkpointing)
    # A frozen part before all trained ones needs no backward pass.
    still = 0.0 if way.tower else tower * (passes - 1)
    return (once * (passes + work.looked / work.requests) - still) / (device.operations * USED)


def measured_seconds(work: Work, pace: Pace, level: LevelSettings) -> float:
    """Seconds at a measured pace; a training step counts as several forward passes."""
    if work.steps:
        trained = work.requests * _passes(level.method, level.gradient_checkpointing)
        return pace.read * work.passes * (trained + work.looked)
    if work.given:
        return pace.read * work.requests
    seconds: float = getattr(pace, work.prompt)
    return work.requests * seconds


def asking_memory(work: Work, size: Size, loading: LoadingSettings, device: Device) -> float:
    """Bytes of a model in inference: weights, cache, one layer's activations, and its batch's logits."""
    return _asking_memory(work, size, loading, device, rows_per_batch(work, size, loading, device))


def rows_per_batch(work: Work, size: Size, loading: LoadingSettings, device: Device) -> int:
    """Requests in a batch of local generation: as in `models/backends/_batches.py`, halved if memory runs out."""
    token = (size.cached + HIDDEN_STATES * size.language.hidden) * _number(loading, device)
    free = device.memory - RUNTIME_BYTES[device.is_gpu] - weights(size, loading, device)
    budget = min(MOST_TOKENS, int(free * SHARE_OF_FREE) // token) if device.is_gpu else CPU_TOKENS
    rows = max(1, min(work.requests, budget * work.requests // (work.tokens + work.patches)))
    while rows > 1 and _asking_memory(work, size, loading, device, rows) > device.memory:
        rows //= 2
    return rows


def _asking_memory(work: Work, size: Size, loading: LoadingSettings, device: Device, rows: int) -> float:
    number = _number(loading, device)
    tokens = rows * math.ceil(work.tokens / max(1, work.requests))
    patches = rows * math.ceil(work.patches / max(1, work.requests))
    cache = tokens * size.cached * number
    working = number * max(tokens * _working(size.language), patches * _working(size.vision))
    asked_for = 1 + work.given * math.ceil(work.reply_tokens / max(1, work.requests))
    logits = rows * asked_for * size.vocabulary * (number + FLOAT32)
    return RUNTIME_BYTES[device.is_gpu] + weights(size, loading, device) + cache + working + logits


def levelling_memory(work: Work, size: Size, way: Way, level: LevelSettings, device: Device) -> float:
    """Bytes of training: weights, gradients and optimiser, activations, and the answers' logits."""
    each = max(1, work.requests)
    tokens, patches = math.ceil(work.tokens / each), math.ceil(work.patches / each)
    number = HALF if way.half else FLOAT32
    kept = (
        way.rows
        * number
        * (tokens * _kept(size.language, way) + (patches * _kept(size.vision, way) if way.tower else 0))
    )
    learnt = way.rows * (math.ceil(work.reply_tokens / each) + work.passes)
    logits = min(learnt * size.vocabulary, work.passes * MOST_LOGITS) * 3 * FLOAT32
    return RUNTIME_BYTES[device.is_gpu] + _held(size, way, level) + kept + logits


def weights(size: Size, loading: LoadingSettings, device: Device) -> float:
    """Bytes of the weights in inference."""
    number = _number(loading, device)
    if loading.quantise is None:
        return size.parameters * number
    return size.adapted * _QUANTISED[loading.quantise] + (size.parameters - size.adapted) * number


def money(work: Work, server: ServerSettings) -> float:
    """What a served model's tokens cost at the given prices."""
    return (work.prompt_tokens * server.prompt_price + work.reply_tokens * server.completion_price) / 1e6


def _passes(method: str, checkpointing: bool) -> int:
    """Cost of a step in forward passes: the backward pass counts two, or one if the weights are frozen."""
    return (2 if method != "full" else 3) + checkpointing


def _once(work: Work, size: Size) -> float:
    """Multiplications to process one of the prompts."""
    tokens, patches = work.prompt_tokens / work.requests, work.patches / work.requests
    return size.language.parameters * tokens + size.vision.parameters * patches


def _forward(work: Work, size: Size) -> float:
    """Operations of one forward pass of everything: one multiplication and one addition per parameter and token."""
    tower, head = size.vision.parameters * work.patches, size.head * work.reply_tokens
    return 2.0 * (size.language.parameters * work.tokens + tower + head)


def _held(size: Size, way: Way, level: LevelSettings) -> float:
    """Bytes of weights, gradients and optimiser state."""
    learning = FLOAT32 + _OPTIMISER
    if way.method == "full":
        still = (0 if way.tower else size.vision.parameters) + (0 if way.language else size.language.parameters)
        return size.parameters * FLOAT32 + (size.parameters - still) * learning
    adapters = level.lora_rank * size.adapter * (FLOAT32 + learning)
    if way.method == "lora":
        return size.parameters * (HALF if way.half else FLOAT32) + adapters
    return size.adapted * _QUANTISED["4bit"] + (size.parameters - size.adapted) * HALF + adapters


def _working(stack: Stack) -> int:
    """Activations of one layer per token in memory, without a backward pass."""
    return 6 * stack.hidden + 3 * stack.intermediate


def _kept(stack: Stack, way: Way) -> int:
    """Activations per token that are kept for the backward pass.

    For a layer without dropout, with fused attention: about 12 of the hidden size (inputs of norms and projections,
    queries, keys, values, attention's output) and 4 of the inner size (gate, its activation, up, their product).
    With checkpointing: each layer's input, and one layer while it is recomputed.
    """
    layer = 12 * stack.hidden + 4 * stack.intermediate
    return stack.layers * stack.hidden + layer if way.checkpointing else stack.layers * layer


def _number(loading: LoadingSettings, device: Device) -> int:
    """Bytes per number in inference."""
    if loading.dtype == "auto":
        return HALF if device.is_gpu else FLOAT32
    return FLOAT32 if loading.dtype == "float32" else HALF
