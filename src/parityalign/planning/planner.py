"""Projects tokens, time, memory and money of a run before it begins, with its assumptions."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from parityalign.config import (
    LevelSettings,
    LoadingSettings,
    Role,
    RunConfig,
    backend_of,
    decide_level,
    split_model,
)
from parityalign.core import EMBEDDED_MODELS, Task, UserError
from parityalign.planning import costs
from parityalign.planning.assumptions import assumptions, shared_in_words
from parityalign.planning.fitting import problems
from parityalign.planning.measuring import this_machine
from parityalign.planning.projection import Projection, ProjectionRow
from parityalign.planning.published import Device, device
from parityalign.planning.sampling import Sample, SamplingOptions, sample
from parityalign.planning.sharing import LEVEL, Sharing, asking, levelling
from parityalign.planning.sizes import ModelFacts, Prompts, PromptSize, PromptSizes, Throughput
from parityalign.planning.sizing import (
    CHARACTERS_PER_TOKEN,
    CHAT_TOKENS,
    place_of,
    prompt_sizes_of,
    size_of,
    usual_pixels,
)
from parityalign.planning.trial import QUESTION, Trial, tried
from parityalign.planning.works import (
    Counts,
    Shares,
    Workload,
    workloads,
)
from parityalign.tasks import settled, task_of

_TRIED: tuple[Role, ...] = ("teacher", "student")
PIXELS_PER_TOKEN = 28 * 28
"""Pixels per token of a served model that is known only by name."""


@dataclass(frozen=True)
class PlanOptions:
    """How a plan is made."""

    sampling: SamplingOptions = SamplingOptions()
    device: str | None = None
    """Of the table of devices. None: this machine."""
    gap_rate: float | None = None
    """Share of the pairs that the student has wrong. None: as found on the sample where both models are tried on it,
    else a half."""
    benchmark: bool | None = None
    """Whether local models are tried on the sample. None: the embedded ones are, on this machine."""
    clock: Callable[[], float] = time.monotonic
    """Gives seconds; what models that are tried are timed by."""

    @property
    def on_gpu(self) -> bool:
        """Whether it is for a GPU, which cuts pictures that become larger."""
        return device(self.device).is_gpu if self.device else torch.cuda.is_available()


def project_run(config: RunConfig, options: PlanOptions) -> Projection:
    """Projects a run.

    Raises:
        UserError: A model's configuration cannot be read, or the number of images is unknown.
    """
    if options.device and options.benchmark:
        raise UserError("--benchmark times this machine and --device plans for another one. Give one of them.")
    where = device(options.device) if options.device else this_machine()
    config = settled(_limited(config, options))
    tasks = {name: task_of(name, data) for name, data in config.tasks.items()}
    limit = config.evaluate.limit
    samples = {name: sample(task, config.tasks[name], options.sampling, limit=limit) for name, task in tasks.items()}
    known = {role: _known(config, role, tasks, samples, options) for role in config.roles}
    config = _decided(config, known["student"])
    trial = _tried(config, tasks, samples, options)
    known = {role: replace(known[role], throughput=trial.paces.get(role)) for role in config.roles}
    shares = _shares(trial, tasks, options.gap_rate)
    amounts = {
        name: Counts(found.images, found.questions, found.own, found.to_answer) for name, found in samples.items()
    }
    prompt_sizes = {role: known[role].prompt_sizes for role in config.roles}
    work = [each for each in workloads(config, amounts, prompt_sizes, shares) if each.requests]
    reading = sum(found.reading for found in samples.values()) / len(samples)
    images = sum(each.images + each.own for each in amounts.values())
    gpus = None if options.device else torch.cuda.device_count()
    sharing: dict[str, Sharing] = {
        **{role: asking(config, role, gpus) for role in config.roles},
        LEVEL: levelling(config, gpus),
    }
    one = _one_of(config, sharing[LEVEL])
    rows = [
        _row(one, each, known[each.role], where, reading, sharing[LEVEL if each.steps else each.role].times_as_fast)
        for each in work
    ]
    said = [f"{role}: {getattr(config, role)}, {known[role].origin}" for role in config.roles]
    of_samples = [text for found in samples.values() for text in found.assumed]
    return Projection(
        rows,
        where,
        said,
        problems(one, work, known, where),
        [*of_samples, *assumptions(config, shares, trial, where, known), *shared_in_words(sharing)],
        _disk(config, images, work, known),
    )


def _disk(config: RunConfig, images: int, work: Sequence[Workload], known: Mapping[Role, ModelFacts]) -> float | None:
    """The most bytes in the run folder; None where nothing is known of the student.

    That is while it is trained, or when all pictures are prepared and there are no checkpoints any more.
    """
    size = known["student"].size
    if size is None:
        return None

    def prepared(*, tests: bool) -> float:
        kept = (
            costs.kept_in_store(
                _different(work, role, images, tests=tests), each.preparation.file_bytes, config.loading
            )
            for role, each in known.items()
        )
        return min(config.loading.prepared_gigabytes * 1e9, sum(kept))

    trained = costs.disk(size, config.level) + prepared(tests=False)
    return costs.records(images, work) + max(trained, costs.student_on_disk(size) + prepared(tests=True))


def _different(work: Sequence[Workload], role: Role, images: int, *, tests: bool) -> int:
    """Pictures that a model is shown: of the pools, and of the test splits, each question counted as about another."""
    shown = {True: 0, False: 0}
    for each in work:
        if each.role == role:
            shown[each.of_tests] = max(shown[each.of_tests], each.pictures)
    return min(images, shown[False]) + tests * shown[True]


def _limited(config: RunConfig, options: PlanOptions) -> RunConfig:
    """With the limits of pixels that a run begins with."""
    loadings: dict[str, LoadingSettings] = {}
    for role in config.roles:
        loading, spec = getattr(config.loading, role), getattr(config, role)
        if backend_of(spec).hub and not loading.max_pixels:
            try:
                place = place_of(split_model(spec)[1], loading, offline=options.sampling.offline)
                limit = usual_pixels(place, loading)
            except UserError:
                if not backend_of(spec).serve:  # whose program may know families that are not known here
                    raise
                limit = None
            loadings[role] = loading.model_copy(update={"max_pixels": limit})
    return config.model_copy(update={"loading": config.loading.model_copy(update=loadings)})


def _decided(config: RunConfig, student: ModelFacts) -> RunConfig:
    """With a value for each setting that is `auto`."""
    facts = student.size.facts if student.size else None
    return config.model_copy(update={"level": decide_level(config.level, facts)})


def _known(
    config: RunConfig, role: Role, tasks: Mapping[str, Task], samples: Mapping[str, Sample], options: PlanOptions
) -> ModelFacts:
    """What can be known of one of the models without loading it, or by asking it a little."""
    spec: str = getattr(config, role)
    backend, (_, location) = backend_of(spec), split_model(spec)
    if backend.remote:
        name = location if backend.hub else location.partition("#")[2]
        return _served(name, getattr(config.loading, role), tasks, samples, options)
    if not backend.hub:
        return ModelFacts(_guessed(tasks, samples), "which has no configuration")
    return _configured(location, getattr(config.loading, role), tasks, samples, options)


def _served(
    name: str,
    loading: LoadingSettings,
    tasks: Mapping[str, Task],
    samples: Mapping[str, Sample],
    options: PlanOptions,
) -> ModelFacts:
    """A model behind a server: what it makes of pictures, if its name is a folder, or one on the hub."""
    if name:
        try:
            return replace(_configured(name, loading, tasks, samples, options), size=None, served=True)
        except UserError:  # servers may call their models as they like
            pass
    return ModelFacts(_guessed(tasks, samples), "of which nothing is known but its name", served=True)


def _configured(
    location: str,
    loading: LoadingSettings,
    tasks: Mapping[str, Task],
    samples: Mapping[str, Sample],
    options: PlanOptions,
) -> ModelFacts:
    """A model with a configuration, in a folder, on the hub or in the table."""
    place = place_of(location, loading, offline=options.sampling.offline)

    sizes = {
        name: prompt_sizes_of(place, loading, found.pictures, _prompts(tasks[name]), on_gpu=options.on_gpu)
        for name, found in samples.items()
    }
    size = size_of(place, loading)
    return ModelFacts(sizes, f"{size.parameters:,} parameters, configuration from {place.origin}", size)


def _guessed(tasks: Mapping[str, Task], samples: Mapping[str, Sample]) -> dict[str, PromptSizes]:
    """How large prompts are to a model of which nothing is known: so many pixels and characters a token."""

    def seen(found: Sample, prompt: str) -> PromptSize:
        pixels = sum(picture.width * picture.height for picture in found.pictures) / len(found.pictures)
        return PromptSize(pixels / PIXELS_PER_TOKEN + CHAT_TOKENS + len(prompt) / CHARACTERS_PER_TOKEN, 0.0)

    how = f"one token per {PIXELS_PER_TOKEN} pixels and per {CHARACTERS_PER_TOKEN} characters"
    return {
        name: PromptSizes.of(_prompts(tasks[name]), partial(seen, found), len(found.pictures), how)
        for name, found in samples.items()
    }


def _prompts(task: Task) -> Prompts:
    answer, rationale = (form.format(question=QUESTION) for form in (task.answer_prompt, task.rationale_prompt))
    longest = max(task.kinds, key=len, default="")
    return Prompts(task.annotate_prompt_for(longest), answer, rationale)


def _tried(config: RunConfig, tasks: Mapping[str, Task], samples: Mapping[str, Sample], options: PlanOptions) -> Trial:
    """What trying the models shows; nothing of those that are not tried."""
    roles = [role for role in _TRIED if _is_tried(getattr(config, role), options)]
    return tried(config, tasks, samples, roles, options.clock)


def _is_tried(spec: str, options: PlanOptions) -> bool:
    location = split_model(spec)[1]
    if backend_of(spec).remote or not backend_of(spec).hub:
        return False
    if options.benchmark is None:
        return options.device is None and Path(location).parent == EMBEDDED_MODELS
    return options.benchmark and Path(location).expanduser().is_dir()


def _shares(trial: Trial, tasks: Mapping[str, Task], gap_rate: float | None) -> dict[str, Shares]:
    """What comes of each task's draws: as found, with the gaps that the user wants to reckon with, or as assumed."""
    assumed = Shares.assumed(0.5 if gap_rate is None else gap_rate)
    found = {name: trial.shares.get(name, assumed) for name in tasks}
    if gap_rate is None:
        return found
    return {name: assumed._replace(pairs=each.pairs) for name, each in found.items()}


def _one_of(config: RunConfig, sharing: Sharing) -> RunConfig:
    """With the pairs of a step that one of the processes has which train, and with how many there are."""
    of_one = {"batch_size": math.ceil(config.level.batch_size / sharing.processes), "processes": sharing.processes}
    return config.model_copy(update={"level": config.level.model_copy(update=of_one)})


def _held(work: Workload, measured: Throughput, level: LevelSettings) -> float | None:
    """The most bytes that a measured model held; None: not measured, as a student that several processes divide."""
    if not work.steps:
        return measured.memory
    return None if costs.divided(level) > 1 or measured.training is None else measured.training.memory


def _row(
    config: RunConfig, work: Workload, known: ModelFacts, where: Device, reading: float, times_as_fast: int
) -> ProjectionRow:
    loading: LoadingSettings = getattr(config.loading, work.role)
    prepared = known.preparation
    seconds = memory = at_once = None
    if known.size and work.steps:
        mode = costs.training_mode(config.level, where, work, known.size)
        at_once = mode.rows
        seconds = costs.levelling_seconds(work, known.size, mode, where)
        memory = costs.levelling_memory(work, known.size, mode, config.level, where)
    elif known.size:
        at_once = costs.rows_per_batch(work, known.size, loading, where)
        seconds = costs.asking_seconds(work, known.size, loading, where)
        memory = costs.asking_memory(work, known.size, loading, where)
    if measured := known.throughput:
        seconds = costs.measured_seconds(work, measured, config.level.processes or 1) or seconds
        memory = _held(work, measured, config.level) or memory
    if memory and not where.is_gpu:
        memory += costs.kept_in_memory(work, prepared) + costs.kept_kernels(work, where)
    return ProjectionRow(
        stage=work.stage,
        model=work.role,
        requests=work.requests,
        prompt_tokens=work.prompt_tokens,
        reply_tokens=work.reply_tokens,
        steps=work.steps,
        at_once=at_once,
        seconds=None if seconds is None else seconds / times_as_fast,
        memory=memory,
        money=costs.money(work, config.server) if known.served and not work.steps else None,
        preparation=costs.prepared(work, prepared, config.loading) * (reading + prepared.seconds)
        if prepared.seconds
        else None,
    )
