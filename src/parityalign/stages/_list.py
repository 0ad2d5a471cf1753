"""The list of stages, read by pipeline, commands, plan, report and export. A new stage: a module and two lines here."""

from collections.abc import Sequence

from parityalign.config import RunConfig
from parityalign.core import UserError, described, load_part
from parityalign.stages import annotate, discrepancy, evaluate, forgotten, identify, intake, level, speed
from parityalign.stages._stage import Stage

STAGES: tuple[Stage, ...] = (
    intake.STAGE,
    annotate.STAGE,
    identify.STAGE,
    discrepancy.STAGE,
    level.STAGE,
    evaluate.STAGE,
    forgotten.STAGE,
    speed.STAGE,
)
"""The stages, in order."""
PARTS = frozenset(
    {
        *("pools", "tests", "own pairs", "review marks"),
        *("teacher model", "second_teacher model", "student model", "metric"),
        *("annotate prompt", "answer prompt", "rationale prompt"),
    }
)
"""Inputs of a stage other than artifacts."""


def with_added(names: Sequence[str]) -> list[Stage]:
    """All stages, including the named ones of other packages.

    Raises:
        UserError: There is no such stage, or it is inconsistent with the others.
    """
    stages = list(STAGES)
    for name in names:
        stage = load_part("stages", name, Stage)
        if why := _misfit(name, stage, stages):
            raise UserError(f"{described('stages', name)} does not fit into a run: {why}.")
        stages.insert([each.name for each in stages].index(stage.after) + 1, stage)
    return stages


def stages_of(config: RunConfig) -> list[Stage]:
    """The stages of a run with this configuration, in their order.

    Raises:
        UserError: One of them does not fit among the others, or is made of what no stage before it makes.
    """
    stages = [stage for stage in with_added(config.stages) if stage.wanted(config)]
    for place, stage in enumerate(stages):
        made = [each.artifact for each in stages[:place]]
        if nobodys := [part for part in (*stage.of, *stage.also_of(config)) if part not in (*made, *PARTS)]:
            whose = described("stages", stage.name) if stage.name in config.stages else f"the stage {stage.name!r}"
            raise UserError(
                f"{whose} is made of {nobodys[0]!r}, which no stage before it makes in this run. "
                f"There are {', '.join([*made, *sorted(PARTS)])}."
            )
    return stages


def command_of(artifact: str, stages: Sequence[Stage] | None = None) -> str:
    """The command that makes an artifact; `run` where no stage does.

    Args:
        artifact: Its folder.
        stages: Those that there are; None: those of this package.
    """
    return next((stage.asked_by for stage in stages or STAGES if stage.artifact == artifact), "run")


def _misfit(name: str, stage: Stage, stages: Sequence[Stage]) -> str:
    """What keeps another package's stage from being one more of the stages; empty: nothing."""
    known = [each.name for each in stages]
    if stage.name != name:
        return f"it calls itself {stage.name!r}, and its command is found by the name {name!r}"
    if name in known:
        return "there is a stage of that name already"
    if stage.after not in known:
        return f"it follows {stage.after!r}, but the stages are {', '.join(known)}"
    if " " in stage.artifact:
        return f"it makes {stage.artifact!r}, and the name of an artifact has no space"
    if stage.artifact in [each.artifact for each in stages]:
        return f"it makes {stage.artifact!r}, which another stage makes already"
    if unknown := [part for part in stage.settings if not _is_setting(part)]:
        return f"it depends on the setting {unknown[0]!r}, which a run does not have"
    return ""


def _is_setting(part: str) -> bool:
    section, _, key = part.partition(".")
    if section not in RunConfig.model_fields:
        return False
    fields = getattr(RunConfig.model_fields[section].annotation, "model_fields", {})
    return not key or key in fields
