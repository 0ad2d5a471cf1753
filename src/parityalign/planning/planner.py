"""Projects tokens, time, memory and money of a run before it begins, with its assumptions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL.Image import Image

from parityalign.config import (
    LoadingSettings,
    Role,
    RunConfig,
    backend_of,
    decide_level,
    level_in_words,
    split_model,
)
from parityalign.core import EMBEDDED_MODELS, Task, UserError
from parityalign.models import load_model
from parityalign.planning import costs
from parityalign.planning.fitting import problems
from parityalign.planning.measuring import measured_throughput, this_machine
from parityalign.planning.projection import Projection, ProjectionRow
from parityalign.planning.published import Device, device
from parityalign.planning.sampling import Sample, SamplingOptions, sample
from parityalign.planning.sharing import Sharing, asking, levelling
from parityalign.planning.sizes import ModelFacts, Prompts, PromptSize, PromptSizes, Throughput
from parityalign.planning.sizing import (
    CHARACTERS_PER_TOKEN,
    CHAT_TOKENS,
    place_of,
    prompt_sizes_of,
    size_of,
    usual_pixels,
)
from parityalign.planning.works import (
    ANSWER_TOKENS,
    PAIR_TOKENS,
    Counts,
    Workload,
    rationale_tokens,
    workloads,
)
from parityalign.tasks import settled, task_of

QUESTION = "What is written on the sign beside the door?"
"""A placeholder for the questions, which are not written yet."""
LEVEL = "level"
PIXELS_PER_TOKEN = 28 * 28
"""Pixels per token of a served model that is known only by name."""


@dataclass(frozen=True)
class PlanOptions:
    """How a plan is made."""

    sampling: SamplingOptions = SamplingOptions()
    device: str | None = None
    """Of the table of devices. None: this machine."""
    gap_rate: float = 0.5
    """Share of the pairs that the student has wrong."""
    benchmark: bool | None = None
    """Whether local models are timed on real requests. None: the embedded ones are, on this machine."""


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
    amounts = {name: Counts(found.images, found.questions, found.own, found.asked) for name, found in samples.items()}
    prompt_sizes = {role: known[role].prompt_sizes for role in config.roles}
    work = [each for each in workloads(config, amounts, prompt_sizes, gap_rate=options.gap_rate) if each.requests]
    reading = sum(found.reading for found in samples.values()) / len(samples)
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
    return Projection(
        rows,
        where,
        said,
        problems(one, work, known, where),
        [*_assumed(config, options, where, samples, known), *_shared(sharing)],
        costs.disk(known["student"].size, config.level) if known["student"].size else None,
    )


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
    known = _configured(location, getattr(config.loading, role), tasks, samples, options)
    if not _is_measured(location, options):
        return known
    return replace(known, throughput=_throughput(config, role, tasks, samples))


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
        name: prompt_sizes_of(place, loading, found.pictures, _prompts(tasks[name])) for name, found in samples.items()
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


def _is_measured(location: str, options: PlanOptions) -> bool:
    if options.benchmark is None:
        return options.device is None and Path(location).parent == EMBEDDED_MODELS
    return options.benchmark and Path(location).expanduser().is_dir()


def _throughput(config: RunConfig, role: Role, tasks: Mapping[str, Task], samples: Mapping[str, Sample]) -> Throughput:
    """Asks the model about the sample of the first task; the others' prompts are about as long."""
    name, found = next(iter(samples.items()))
    rationale = config.discrepancy.max_new_tokens if config.wants_rationales and role == "teacher" else 0
    thoughts = getattr(config.loading, role).thinking_tokens
    tokens = config.annotate.max_new_tokens + thoughts, config.identify.max_new_tokens + thoughts, rationale
    model = load_model(getattr(config, role), getattr(config.loading, role))
    with TemporaryDirectory() as folder:
        images = _saved(found.pictures, Path(folder))
        return measured_throughput(model, images, _prompts(tasks[name]), tokens, config.annotate.pairs_per_image)


def _saved(pictures: Sequence[Image], folder: Path) -> list[str]:
    """The sample's pictures as files, since models read files."""
    paths = [folder / f"{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    return [*map(str, paths)]


def _one_of(config: RunConfig, sharing: Sharing) -> RunConfig:
    """With the pairs of a step that one of the processes has which train."""
    pairs = math.ceil(config.level.batch_size / sharing.processes)
    return config.model_copy(update={"level": config.level.model_copy(update={"batch_size": pairs})})


def _shared(sharing: Mapping[str, Sharing]) -> Iterator[str]:
    """What shares work, where something does."""
    for what, found in sharing.items():
        if found.processes > 1:
            shared = "each step; adding up their gradients is not counted" if what == LEVEL else "its questions"
            yield f"{what}: {found.in_words}, share {shared}; memory is that of one"


def _row(
    config: RunConfig, work: Workload, known: ModelFacts, where: Device, reading: float, times_as_fast: int
) -> ProjectionRow:
    loading: LoadingSettings = getattr(config.loading, work.role)
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
    if known.throughput:
        seconds = costs.measured_seconds(work, known.throughput, config.level)
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
        preparation=work.prepared * (reading + _preparation(known)) if _preparation(known) else None,
    )


def _preparation(known: ModelFacts) -> float:
    """CPU seconds a picture, on average over the tasks; 0: not known."""
    return (
        0.0 if known.served else sum(each.preparation for each in known.prompt_sizes.values()) / len(known.prompt_sizes)
    )


def _assumed(
    config: RunConfig,
    options: PlanOptions,
    where: Device,
    samples: Mapping[str, Sample],
    known: Mapping[Role, ModelFacts],
) -> list[str]:
    """All assumptions that the figures depend on."""
    said = [text for found in samples.values() for text in found.assumed]
    said.append(
        f"the student has {options.gap_rate:.0%} of the pairs wrong and each of these is a gap; every reply is a pair, "
        "no image is set aside, training does not stop early; a model in this process reads a prompt once for all draws"
    )
    said.append(
        f"pairs of {PAIR_TOKENS} tokens, answers of {ANSWER_TOKENS}; the question of a pair as long as {QUESTION!r}"
    )
    said.append(f"level: {level_in_words(config.level)}")
    if config.wants_rationales:
        said.append(f"rationales of {rationale_tokens(config)} tokens with their answers, all of them kept")
    if config.level.needs_observations and not config.shows("teacher"):
        left_out = " and ".join(config.level.needs_observations)
        said.append(f"without {left_out}: this teacher gives only text")
    if thoughts := config.loading.teacher.thinking_tokens:
        said.append(f"thoughts of the teacher of {thoughts} tokens before each reply, all its room")
    for role, each in known.items():
        if limit := getattr(config.loading, role).max_pixels:
            said.append(f"{role}: pictures of at most {limit:,} pixels")
        said.extend(f"{role}: {how}" for how in {sizes.assumed for sizes in each.prompt_sizes.values()} if how)
        if each.throughput:
            said.append(
                f"{role}: seconds per request as measured on {each.throughput.requests} requests of each kind here"
            )
    if batch := config.server.batch:
        said.append(
            f"more than {batch.above:,} questions together by the batch interface, at {batch.price:g} of the prices; "
            "how long it takes is the provider's business"
        )
    said.append(_of_device(where))
    said.append(
        "CPU hours: reading and preparing pictures on one core, each for every question on it, as measured here on the "
        "sample; several cores share them, and the larger of them and the hours is what it takes"
    )
    said.append("the hours do not include these, nor intake, loading models and the report")
    said.append(
        "not counted: reading and comparing attention and distributions, beyond the passes through "
        "the models, and the timing of the student in `evaluate`"
    )
    return said


def _of_device(where: Device) -> str:
    return (
        f"{where.name}: peak {where.operations / 1e12:,.3g} teraflops, of which {costs.USED:.0%} are reached; "
        f"{where.bandwidth / 1e9:,.0f} GB per second, of which {costs.STREAMED:.0%} are reached; "
        f"at least {costs.STEP_SECONDS[where.is_gpu]:g} s for each "
        "token of a batch's replies"
    )
