"""The list of stages, read by pipeline, commands, plan, report and export. A new stage is a module and a line here."""

from collections.abc import Sequence

from parityalign.config import RunConfig
from parityalign.core import UserError, load_part
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
        *("pools", "tests", "teacher model", "student model", "metric"),
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
        known = [each.name for each in stages]
        if stage.after not in known:
            raise _misfit(name, stage, f"it follows {stage.after!r}, but the stages are {', '.join(known)}")
        stages.insert(known.index(stage.after) + 1, stage)
    for place, stage in enumerate(stages):
        made = {each.artifact for each in stages[:place]}
        if stage.artifact in made:
            raise _misfit(stage.name, stage, f"it makes {stage.artifact!r}, which another stage already makes")
        if nobodys := [part for part in stage.of if part not in made | PARTS]:
            raise _misfit(stage.name, stage, f"it needs {nobodys[0]!r}, which no stage before it makes")
    return stages


def stages_of(config: RunConfig) -> list[Stage]:
    """The stages of a run with this configuration, in order."""
    return [stage for stage in with_added(config.stages) if stage.wanted(config)]


def command_of(artifact: str) -> str:
    """The command that makes an artifact; `run` if no stage of this package does."""
    return next((stage.asked_by for stage in STAGES if stage.artifact == artifact), "run")


def _misfit(name: str, stage: Stage, why: str) -> UserError:
    return UserError(f"the stage {name!r} ({stage.work.__module__}) does not fit into the run: {why}.")
