"""Estimates time, memory and money from counts of parameters and tokens.

A forward pass takes 2 operations per parameter and token; a backward pass as many for the gradient of the inputs and
as many for that of the weights (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Attention between tokens is left
out: at the lengths here it adds little.
"""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from parityalign.config import LevelSettings, Loadings, LoadingSettings, ServerSettings
from parityalign.models import KEPT_BYTES, ROOM_OF_CPU, SMALLEST, room_of_gpu
from parityalign.planning.published import Device
from parityalign.planning.sizes import Preparation, Size, Stack, Throughput
from parityalign.planning.works import Workload
from parityalign.training import CACHE_BYTES, MICRO_BATCH_TOKENS, MOST_LOGITS, SMALLEST_TOWER

USED = 0.4
"""Share of a device's peak operations that large batches reach."""
STREAMED = 0.6
"""Share of its memory bandwidth that token-by-token decoding reaches."""
STEP_SECONDS = {True: 0.025, False: 0.002}
"""Minimum seconds of one step of `generate`, on a GPU (dominated by kernel launches) and on a CPU."""
RUNTIME_BYTES = {True: 1.0e9, False: 0.5e9}
"""What PyTorch and the device's libraries take before a model is loaded."""
FLOAT32, HALF = 4, 2
_QUANTISED = {"8bit": 1.0, "4bit": 0.516}
"""Bytes per weight; in 4 bits including its share of the doubly quantised scales (Dettmers et al. 2023, section 3)."""
_OPTIMISERS: Mapping[str, float] = MappingProxyType({"adamw": 8.0, "adamw_8bit": 2.03, "adafactor": 0.0})
"""Bytes that an optimiser keeps of each trained parameter: two averages in float32, or in 8 bits with a scale for every
256; Adafactor keeps sums of rows and columns."""
_CHECKPOINTS = 4
"""On the disk at once: three that are kept and one that is written."""
_KERNELS, _KERNELS_PER_STEP, _KERNEL_BYTES = 1024, 31, 0.25e6
"""How many oneDNN keeps; how many more a step asks for, and the bytes of one, as training the bundled student has them
(docs/log.md)."""
_RECORD = 220
"""Bytes of a line of a file of records, or of a row of the answer store, as runs of the demo have them."""


class TrainingMode(NamedTuple):
    """How the student is trained, as far as time and memory hang on it."""

    method: str
    """`full`, `lora` or `qlora`."""
    checkpointing: bool
    """Whether activations are recomputed in the backward pass."""
    rows: int
    """Examples that are in memory at once."""
    bf16: bool
    """Whether it multiplies in bfloat16."""
    tower: bool
    """Whether the vision tower learns."""
    language: bool
    """Whether the language model learns."""
    optimiser: str = "adamw"
    divided: int = 1
    """Processes that divide weights, gradients and the optimiser's averages among them."""
    processes: int = 1
    """Those that share each step."""


def divided(level: LevelSettings) -> int:
    """Processes that divide the student; 1: each has it whole."""
    return (level.processes or 1) if level.sharded else 1


def training_mode(level: LevelSettings, device: Device, work: Workload, size: Size) -> TrainingMode:
    """How `level` trains a student on a device: with as many rows at once as training takes, halved until they fit."""
    mode, each = _wished(level, bf16=device.is_gpu), (work.tokens + work.patches) / max(1, work.requests)
    mode = mode._replace(rows=max(1, min(mode.rows, int(MICRO_BATCH_TOKENS[device.is_gpu] / max(1, each)))))
    while mode.rows > 1 and levelling_memory(work, size, mode, level, device) > device.memory:
        mode = mode._replace(rows=mode.rows // 2)
    return mode


def _wished(level: LevelSettings, *, bf16: bool) -> TrainingMode:
    multipliers = level.decided.lr_multipliers
    return TrainingMode(
        method=level.decided.method,
        checkpointing=level.gradient_checkpointing,
        rows=min(level.batch_size, level.micro_batch_size or level.batch_size),
        bf16=bf16,
        tower=bool(multipliers.vision),
        language=bool(multipliers.language),
        optimiser=level.optimiser,
        divided=divided(level),
        processes=level.processes or 1,
    )


def asking_seconds(work: Workload, size: Size, loading: LoadingSettings, device: Device) -> float:
    """How long it takes to read the prompts and to write or read the replies."""
    read = _forward(work, size) - 2.0 * work.shared_prefixes * _once(work, size)
    if work.given:
        return read / (device.operations * USED)
    batches = math.ceil(work.requests / rows_per_batch(work, size, loading, device))
    step = max(STEP_SECONDS[device.is_gpu], weights(size, loading, device) / (device.bandwidth * STREAMED))
    return read / (device.operations * USED) + batches * work.reply_tokens / work.requests * step


def levelling_seconds(work: Workload, size: Size, mode: TrainingMode, device: Device) -> float:
    """How long training takes, with the looks at the held-out pairs."""
    once, tower = _forward(work, size), 2.0 * size.vision.parameters * work.patches
    passes, looks = _passes(mode.method, mode.checkpointing), work.eval_examples / work.requests
    if mode.tower:
        operations = once * (passes + looks)
    elif mode.divided > 1 or size.vision.parameters < SMALLEST_TOWER:
        # A tower that does not learn needs no backward pass, being before all that does.
        operations = once * (passes + looks) - tower * (passes - 1)
    else:
        seen = _looks(work, mode.processes) / (work.requests * work.passes)
        operations = (once - tower) * (passes + looks) + tower * min(1.0 + looks, seen)
    return operations / (device.operations * USED)


def measured_seconds(work: Workload, measured: Throughput, processes: int = 1) -> float | None:
    """How long it takes at a measured throughput, of one process; None: training was not measured.

    Args:
        work: What there is to do.
        measured: The throughput.
        processes: In training: those that share each step.
    """
    if work.steps:
        pace = measured.training
        if pace is None:
            return None
        learning = work.passes * (pace.trained * work.requests + pace.looked_at * work.eval_examples)
        return learning + pace.look * _looks(work, processes)
    if work.given:
        return measured.read * work.requests
    seconds: float = measured.test if work.of_tests else getattr(measured, work.prompt)
    return work.requests * seconds


def asking_memory(work: Workload, size: Size, loading: LoadingSettings, device: Device) -> float:
    """Bytes that a model takes while it is asked: weights, cache, one layer's activations, and its batch's logits."""
    return _asking_memory(work, size, loading, device, rows_per_batch(work, size, loading, device))


def rows_per_batch(work: Workload, size: Size, loading: LoadingSettings, device: Device) -> int:
    """Requests in a batch of local generation: as many as the model takes, halved where memory runs out."""
    free = device.memory - RUNTIME_BYTES[device.is_gpu] - weights(size, loading, device)
    widths = size.language.hidden, size.vision.hidden
    fitting = room_of_gpu(free, size.cached, widths, _number(loading, device))
    room = fitting if device.is_gpu else ROOM_OF_CPU
    share = room.share(work.tokens, work.tokens - work.reply_tokens, work.patches)
    rows = max(1, min(work.requests, int(work.requests / max(share, 1e-9))))
    while rows > 1 and _asking_memory(work, size, loading, device, rows) > device.memory:
        rows //= 2
    return rows


def _asking_memory(work: Workload, size: Size, loading: LoadingSettings, device: Device, rows: int) -> float:
    number = _number(loading, device)
    tokens = rows * math.ceil(work.tokens / max(1, work.requests))
    patches = rows * math.ceil(work.patches / max(1, work.requests))
    cache = tokens * size.cached * number
    working = number * max(tokens * _working(size.language), patches * _working(size.vision))
    asked_for = 1 + work.given * math.ceil(work.reply_tokens / max(1, work.requests))
    logits = rows * asked_for * size.vocabulary * (number + FLOAT32)
    return RUNTIME_BYTES[device.is_gpu] + weights(size, loading, device) + cache + working + logits


def levelling_memory(work: Workload, size: Size, mode: TrainingMode, level: LevelSettings, device: Device) -> float:
    """Bytes that training takes: weights, gradients and optimiser, activations, and the answers' logits.

    When it ends the student is opened whole, as it was trained, to see that what was saved is the same: after 4 bits
    that is the most.
    """
    each = max(1, work.requests)
    tokens, patches = math.ceil(work.tokens / each), math.ceil(work.patches / each)
    number = HALF if mode.bf16 else FLOAT32
    kept = (
        mode.rows
        * number
        * (tokens * _kept(size.language, mode) + (patches * _kept(size.vision, mode) if mode.tower else 0))
    )
    learnt = mode.rows * (math.ceil(work.reply_tokens / each) + work.passes)
    logits = min(learnt * size.vocabulary, work.passes * MOST_LOGITS) * 3 * FLOAT32
    end = size.parameters * (number if mode.method != "full" else FLOAT32)
    return RUNTIME_BYTES[device.is_gpu] + max(_held(size, mode, level) + kept + logits, end)


def disk(size: Size, level: LevelSettings) -> float:
    """Bytes on the disk while the student is trained: checkpoints of what learns, and at last the student."""
    mode = _wished(level, bf16=False)
    learning = _learning(size, mode, level)
    saved = size.parameters if mode.method == "full" else learning
    return _CHECKPOINTS * (saved * FLOAT32 + learning * _OPTIMISERS[mode.optimiser]) + student_on_disk(size)


def student_on_disk(size: Size) -> float:
    """Bytes on the disk of the levelled student."""
    return size.parameters * HALF


def records(images: int, work: Iterable[Workload]) -> float:
    """Bytes on the disk of the records: images, answers in store and file, pairs, verdicts."""
    asked = [each for each in work if not each.steps]
    pairs = sum(each.requests for each in asked if (each.stage, each.role) == ("identify", "student"))
    return _RECORD * (images + 2.0 * sum(each.requests for each in asked) + 2 * pairs)


def kept_in_store(pictures: int, file_bytes: float, loading: Loadings) -> float:
    """Bytes on the disk of pictures that were prepared for one model."""
    room = loading.prepared_gigabytes * 1e9
    return min(room, pictures * file_bytes) if file_bytes >= SMALLEST else 0.0


def kept_kernels(work: Workload, device: Device) -> float:
    """Bytes of the kernels that oneDNN makes on a processor for each shape of a batch, more than a trial sees."""
    return 0.0 if device.is_gpu else _KERNEL_BYTES * min(_KERNELS, _KERNELS_PER_STEP * work.steps)


def kept_in_memory(work: Workload, each: Preparation) -> float:
    """Bytes of the pictures that training keeps beside it, or of the features that a model on a processor keeps."""
    if work.steps:
        return min(CACHE_BYTES, work.pictures * each.memory_bytes)
    return min(KEPT_BYTES["cpu"], work.pictures * each.feature_bytes)


def prepared(work: Workload, each: Preparation, loading: Loadings) -> float:
    """How many pictures are prepared: each once; in training those that are not kept at each visit."""
    if not work.steps:
        return work.pictures
    in_memory = kept_in_memory(work, each) / max(1.0, work.pictures * each.memory_bytes)
    in_files = kept_in_store(work.pictures, each.file_bytes, loading) / max(1.0, work.pictures * each.file_bytes)
    share = min(1.0, in_memory + in_files)
    visits = work.requests + work.eval_examples
    return work.pictures * share + visits * (1 - share) + work.views


def weights(size: Size, loading: LoadingSettings, device: Device) -> float:
    """Bytes of the weights in inference."""
    return weight_bytes(size, loading.quantise, _number(loading, device))


def weight_bytes(size: Size, quantise: str | None, number: int) -> float:
    """Bytes of the weights, with so many bytes for each that is not quantised."""
    quantised = {None: 0, "8bit": size.adapted, "4bit": size.quantised}[quantise]
    return quantised * (_QUANTISED[quantise] if quantise else 0) + (size.parameters - quantised) * number


def money(work: Workload, server: ServerSettings) -> float:
    """What a served model's tokens cost at the given prices, by the batch interface where it is used for so many."""
    full = (work.prompt_tokens * server.prompt_price + work.reply_tokens * server.completion_price) / 1e6
    return full * server.batch.price if server.batch and work.requests > server.batch.above else full


def _passes(method: str, checkpointing: bool) -> int:
    """Cost of a step in forward passes: the backward pass counts two, or one if the weights are frozen."""
    return (2 if method != "full" else 3) + checkpointing


def _looks(work: Workload, processes: int) -> float:
    """How often a frozen tower looks: at augmented views each time, at a picture once in each process that has it.

    The processes deal out each epoch anew.
    """
    having: float = processes * (1 - (1 - 1 / processes) ** work.epochs)
    return work.pictures * max(1.0, having) + work.views + (work.eval_examples if work.views else 0)


def _once(work: Workload, size: Size) -> float:
    """Multiplications that reading one of the prompts takes."""
    tokens, patches = work.prompt_tokens / work.requests, work.patches / work.requests
    return size.language.parameters * tokens + size.vision.parameters * patches


def _forward(work: Workload, size: Size) -> float:
    """Operations of one forward pass of everything: a multiplication and an addition a parameter and token."""
    tower, head = size.vision.parameters * work.patches, size.head * work.reply_tokens
    return 2.0 * (size.language.parameters * work.tokens + tower + head)


def _held(size: Size, mode: TrainingMode, level: LevelSettings) -> float:
    """Bytes of weights, gradients and what the optimiser keeps.

    What learns is in float32, and where it multiplies in bfloat16, autocast keeps a copy of it in that.
    """
    learning = _learning(size, mode, level)
    each = FLOAT32 + _OPTIMISERS[mode.optimiser] + (HALF if mode.bf16 else 0)
    if mode.divided > 1:
        return _held_divided(size, mode, learning)
    if mode.method == "full":
        return size.parameters * FLOAT32 + learning * each
    adapters = learning * (FLOAT32 + each)
    if mode.method == "lora":
        return size.parameters * (HALF if mode.bf16 else FLOAT32) + adapters
    # peft's preparation has the weights that are not quantised in float32.
    return weight_bytes(size, "4bit", FLOAT32) + adapters


def _held_divided(size: Size, mode: TrainingMode, learning: int) -> float:
    """The same of one of the processes that divide a student which is trained whole.

    During a pass it has whole, with their gradients: all that is outside the layers of the longest stack, and one of
    these layers with the weights of the next. Autocast's copies are whole too.
    """
    stack, learns = max((size.language, mode.language), (size.vision, mode.tower), key=lambda part: part[0].parameters)
    layer, rest = stack.parameters / max(1, stack.layers), size.parameters - stack.parameters
    parts = size.parameters * FLOAT32 + learning * (FLOAT32 + _OPTIMISERS[mode.optimiser])
    weights = rest + 2 * layer
    gradients = learning - learns * stack.parameters + learns * layer
    return parts / mode.divided + FLOAT32 * (weights + gradients) + learning * HALF * mode.bf16


def _learning(size: Size, mode: TrainingMode, level: LevelSettings) -> int:
    """Parameters that learn."""
    if mode.method != "full":
        return level.lora_rank * (size.adapter - (0 if mode.tower else size.tower_adapter))
    still = (0 if mode.tower else size.vision.parameters) + (0 if mode.language else size.language.parameters)
    return size.parameters - still


def _working(stack: Stack) -> int:
    """Activations of one layer per token in memory, without a backward pass."""
    return 6 * stack.hidden + 3 * stack.intermediate


def _kept(stack: Stack, mode: TrainingMode) -> int:
    """Numbers that are kept of each token for the backward pass.

    For a layer without dropout, with fused attention: about 12 of the hidden size (inputs of norms and projections,
    queries, keys, values, attention's output) and 4 of the inner size (gate, its activation, up, their product).
    With checkpointing: each layer's input, and one layer while it is recomputed.
    """
    layer = 12 * stack.hidden + 4 * stack.intermediate
    return stack.layers * stack.hidden + layer if mode.checkpointing else stack.layers * layer


def _number(loading: LoadingSettings, device: Device) -> int:
    """Bytes per number in inference."""
    if loading.dtype == "auto":
        return HALF if device.is_gpu else FLOAT32
    return FLOAT32 if loading.dtype == "float32" else HALF
