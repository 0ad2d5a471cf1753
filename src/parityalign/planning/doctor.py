"""Describes this machine, how a run's models would be loaded on it, and problems with them; loads no weights."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from huggingface_hub import constants
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, PreTrainedConfig

from parityalign import training
from parityalign.config import (
    LoadingSettings,
    RaySettings,
    Role,
    RunConfig,
    backend_of,
    decide_level,
    is_path,
    level_in_words,
    refuse_high_rate,
    split_model,
)
from parityalign.core import UserError, missing_package, unusable_proxy, usable_cores
from parityalign.engines import AnswerStore, Cluster, connect
from parityalign.models import (
    bf16_is_fast,
    dtype_of,
    gpus_in_use,
    hub_answers,
    model_folder,
    open_config,
    open_processor,
    published_files,
    refuse_damaged,
    refuse_teacher,
    this_device,
    total_memory,
    usual_limit,
    weight_files,
)
from parityalign.planning.advice import advice
from parityalign.planning.costs import disk, weight_bytes
from parityalign.planning.sharing import Sharing, asking, levelling
from parityalign.planning.sizes import Size
from parityalign.planning.sizing import Place, size_of

PACKAGES = (
    "torch",
    "transformers",
    "torchvision",
    "accelerate",
    "peft",
    "bitsandbytes",
    "flash-attn",
    "liger-kernel",
    "datasets",
    "ray",
)
"""Whose versions are shown; those from torchvision on may be missing."""


@dataclass(frozen=True)
class Machine:
    """This machine."""

    cores: int
    memory: int
    """Bytes."""
    gpus: list[dict[str, Any]]
    """By GPU: name, memory (bytes), and whether it multiplies bfloat16 in hardware."""
    packages: dict[str, str | None]
    """Versions by package, None if not installed."""
    hub: str
    hub_reachable: bool
    cache: str
    proxy: str = ""
    """Why no server can be reached through the proxy that the environment names; empty: no obstacle."""
    gpus_in_use: Sequence[str] = ()
    """A line for each GPU of which other processes hold memory."""


@dataclass(frozen=True)
class ModelCheck:
    """One model of a run, as it would be loaded here."""

    role: str
    model: str
    problem: str | None = None
    """Why it cannot be loaded or levelled, and what to do; None: no problem."""
    family: str | None = None
    commit: str | None = None
    dtype: str | None = None
    attention: str | None = None
    device: str | None = None
    image_processor: str | None = None
    max_pixels: int | None = None
    """Most pixels of an image, as set or as a run begins with; None: the processor's own limit."""
    files: int | None = None
    """Bytes of its weights as published."""
    missing: int | None = None
    """Bytes of them still to download."""
    needs: int | None = None
    """Bytes of its weights once loaded, without activations."""
    has: int | None = None
    """Bytes of the memory that they are loaded into."""
    level: str | None = None
    """Of the student: how it is trained, with what `auto` comes to."""
    shared: str | None = None
    """The processes that each hold it, where there are several, in words."""
    sees: bool | None = None
    """Of a served model that was asked: whether it tells a drawn picture from a blank one."""
    server: str | None = None
    """The program that serves it, with its version, if the run starts one."""

    @property
    def fits(self) -> bool | None:
        """Whether the weights fit; None if unknown."""
        return None if self.needs is None or self.has is None else self.needs < self.has


def inspect_machine() -> Machine:
    """Describes this machine."""
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    fast = bool(gpus) and bf16_is_fast(on_gpu=True)
    return Machine(
        cores=usable_cores(),
        memory=total_memory(),
        gpus=[{"name": gpu.name, "memory": gpu.total_memory, "bfloat16": fast} for gpu in gpus],
        packages={name: _version(name) for name in PACKAGES},
        hub=constants.ENDPOINT,
        hub_reachable=hub_answers(),
        cache=constants.HF_HUB_CACHE,
        proxy=unusable_proxy(),
        gpus_in_use=gpus_in_use(),
    )


def examine_models(config: RunConfig, here: Machine) -> list[ModelCheck]:
    """Looks at the models of a run, and whether the student can be levelled here by the method that was chosen."""
    examined = _on_cluster(config, [_examined(role, config, here) for role in config.roles])
    checks = dict(zip(config.roles, examined, strict=True))
    level, problem = _levelled_with(config, len(here.gpus))
    found = [each for each in (checks["student"].problem, problem) if each]
    checks["student"] = replace(checks["student"], problem="\n".join(dict.fromkeys(found)) or None, level=level)
    return [*checks.values()]


def doctor_record(here: Machine, checks: list[ModelCheck]) -> dict[str, Any]:
    """Everything, for programs."""
    machine = {**asdict(here), "advice": [*advice(here.gpus, here.packages)]}
    return {"machine": machine, "models": [{**asdict(check), "fits": check.fits} for check in checks]}


def doctor_lines(here: Machine, checks: list[ModelCheck]) -> Iterator[str]:
    """The same for people."""
    gpus = [f"{gpu['name']} ({_size(gpu['memory'])}, bfloat16 {_yes(gpu['bfloat16'])})" for gpu in here.gpus]
    yield f"machine: {here.cores} cores, {_size(here.memory)} of memory, {', '.join(gpus) or 'no GPU'}"
    yield "packages: " + ", ".join(f"{name} {found or 'none'}" for name, found in here.packages.items())
    yield f"hub: {here.hub} is {'reachable' if here.hub_reachable else 'not reachable'}; cache: {here.cache}"
    if here.proxy:
        yield f"problem: {here.proxy}"
    yield from (f"note: {each}" for each in [*advice(here.gpus, here.packages), *here.gpus_in_use])
    for check in checks:
        yield f"{check.role}: {check.model}"
        yield from (f"  {line}" for line in _told(check))


def _told(check: ModelCheck) -> Iterator[str]:
    if check.family:
        at = f" at {check.commit[:12]}" if check.commit else ""
        limit = f" of at most {check.max_pixels:,} pixels" if check.max_pixels else ""
        pictures = f", pictures{limit} by {check.image_processor}" if check.image_processor else ""
        yield f"{check.family}{at}: {check.dtype} on {check.device}, attention {check.attention}{pictures}"
    if check.files is not None and check.needs is not None and check.has is not None:
        there = f"{_size(check.missing)} to download" if check.missing else "all here"
        fits = "fits" if check.fits else "does NOT fit: try dtype: bfloat16, quantise: 4bit or device_map: auto"
        room = f"{_size(check.needs)} of {_size(check.has)} once loaded"
        yield f"weights: {_size(check.files)} ({there}); {room}: {fits}"
    if check.shared:
        yield f"asked by {check.shared}"
    if check.level:
        yield f"level: {check.level}"
    if check.sees:
        yield "answers, and sees pictures"
    if check.server:
        yield f"served by {check.server}"
    if check.problem:
        yield from ("problem: " + check.problem).splitlines()


def _on_cluster(config: RunConfig, checks: list[ModelCheck]) -> list[ModelCheck]:
    """The same with what is there of the Ray cluster that local models are asked on, if the run has one."""
    if config.ray is None:
        return checks
    try:
        found = _cluster_in_words(config.ray)
    except UserError as problem:
        return [_with_problem(each, str(problem)) if each.shared else each for each in checks]
    return [replace(each, shared=f"{each.shared}, {found}") if each.shared else each for each in checks]


def _with_problem(check: ModelCheck, problem: str) -> ModelCheck:
    return replace(check, problem="\n".join(filter(None, (check.problem, problem))))


def _cluster_in_words(settings: RaySettings) -> str:
    """What there is of a cluster; one of this machine alone is not started for that.

    Raises:
        UserError: There is none, or no Ray.
    """
    if settings.address is None:
        if _version("ray") is None:
            raise missing_package("asking on a cluster (ray)", "ray", "'parityalign[ray]'")
        return "a cluster of this machine alone"
    cluster = Cluster(settings, lambda _: None)
    try:
        joined = cluster.joined()
    finally:
        cluster.close()
    return f"{joined.nodes}: room for {joined.room} of {joined.replica}"


def _levelled_with(config: RunConfig, gpus: int) -> tuple[str | None, str | None]:
    """How the student would be trained, and why it cannot be, both in words."""
    told = None
    try:
        size = _size_of_student(config)
        facts = size.facts if size else None
        level = decide_level(config.level, facts)
        sharing = levelling(config, gpus)
        told = level_in_words(level) + (f", {sharing.in_words}" if sharing.processes > 1 else "")
        refuse_high_rate(level, facts)
        training.refuse_method(level.decided.method)
        training.refuse_optimiser(level.optimiser)
        _refuse_full_disk(config.run, disk(size, level) if size else 0)
    except UserError as problem:
        return told, str(problem)
    return told, None


def _size_of_student(config: RunConfig) -> Size | None:
    """None for a student of which only its backend knows anything."""
    if not backend_of(config.student).trainable:
        return None
    return size_of(Place(split_model(config.student)[1], "its folder"), config.loading.student)


def _refuse_full_disk(run: Path, needed: float) -> None:
    there = next(folder for folder in (run, *run.parents) if folder.is_dir())
    free = disk_usage(there).free
    if needed > free:
        raise UserError(
            f"training writes checkpoints of up to {_size(round(needed))} into {run}, whose disk has {_size(free)} "
            "free. Free some, set `run` to a folder on another disk, or set level.method: lora"
        )


def _examined(role: Role, config: RunConfig, here: Machine) -> ModelCheck:
    spec, loading, engine = getattr(config, role), getattr(config.loading, role), config.engine
    backend, (_, location) = backend_of(spec), split_model(spec)
    sharing = asking(config, role, len(here.gpus))
    facts: dict[str, Any] = {"shared": sharing.in_words} if sharing.processes > 1 or sharing.on_ray else {}
    try:
        if backend.serve:
            facts["server"] = backend.serve.found(engine)
            backend.serve.check(location, loading, engine)
            return ModelCheck(role, spec, **facts)
        if not backend.hub:
            backend.check(location, loading)
            if backend.remote:
                once = config.server_of(role).model_copy(update={"max_attempts": 1})
                with closing(AnswerStore()) as store:
                    connect(spec, loading, once, store).look()
                facts["sees"] = True
            return ModelCheck(role, spec, **facts)
        folder = model_folder(location, loading, weights=False)
        if not is_path(location):
            facts["commit"] = folder.name
        opened = open_config(location, loading)
        facts |= _loaded_as(opened, loading)
        refuse_damaged(location, folder)  # the size of damaged files is meaningless
        facts |= _room(location, folder, opened, loading)
        if config.ray is None or config.ray.address is None:  # of other nodes nothing is known
            facts |= _part(here, loading, sharing)
        backend.check(location, loading)
        if role != "student":
            refuse_teacher(location, loading)
        processor: Any = open_processor(location, loading)
        facts["image_processor"] = type(processor.image_processor).__name__
        facts["max_pixels"] = loading.max_pixels or usual_limit(processor.image_processor)
    except UserError as problem:
        facts["problem"] = str(problem)
    return ModelCheck(role, spec, **facts)


def _loaded_as(config: PreTrainedConfig, loading: LoadingSettings) -> dict[str, str]:
    kind: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    usual = "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"
    precision = str(dtype_of(loading)).removeprefix("torch.")
    return {
        "family": kind.__name__ if kind else config.model_type,
        "dtype": f"{loading.quantise} and {precision}" if loading.quantise else precision,
        "attention": usual if loading.attention == "auto" else loading.attention,
        "device": "all devices" if loading.device_map else this_device(),
    }


def _room(location: str, folder: Path, config: PreTrainedConfig, loading: LoadingSettings) -> dict[str, int]:
    """Bytes of the weights: published, still to download, loaded."""
    names = weight_files(folder)
    if is_path(location):
        sizes = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    else:
        sizes = published_files(location, loading)
    files = sum(sizes.get(name, 0) for name in names)
    stored = getattr(torch, config.dtype) if isinstance(config.dtype, str) else config.dtype
    number = dtype_of(loading).itemsize
    needs: float = files / (stored or torch.float32).itemsize * number
    if loading.quantise:
        needs = weight_bytes(size_of(Place(location, "its folder"), loading), loading.quantise, number)
    return {
        "files": files,
        "missing": sum(sizes.get(name, 0) for name in names if not (folder / name).is_file()),
        "needs": round(needs),
    }


def _part(here: Machine, loading: LoadingSettings, sharing: Sharing) -> dict[str, int]:
    """Bytes of the memory that the model is loaded into, or that each of several processes has of it."""
    gpus = [int(gpu["memory"]) for gpu in here.gpus]
    has = sum(gpus) + here.memory if loading.device_map else gpus[0] if gpus else here.memory
    return {"has": has // ceil(sharing.processes / max(1, len(gpus)))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _size(size: int | None) -> str:
    gigabytes = (size or 0) / 1e9
    return f"{gigabytes:.1f} GB" if gigabytes >= 0.1 else f"{gigabytes * 1000:.1f} MB"


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
