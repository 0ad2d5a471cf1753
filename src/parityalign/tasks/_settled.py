"""What defaults come to that hang on the teacher, and on what a run was begun with: kinds, their order, `top_p`,
`interpolate`.

Nothing is paid or trained twice: where the pairs of a run were asked for, or its student trained, as an earlier version
did by default, the run goes on so unless its RUN.yaml says what it wants.
"""

from collections.abc import Mapping
from typing import Any

from parityalign.config import AnnotateSettings, LevelSettings, RunConfig, TaskData, is_bundled, parts_of_task
from parityalign.core import KIND_FIELD, STUDENT_FOLDER, read_begun, read_manifest
from parityalign.tasks._load import default_kinds, task_of

_PAIRS = "pairs"
"""The artifact that tells how pairs were asked for."""
_TOP_P = "top_p"
_FORMER_TOP_P = 1.0
_IN_TURN = "kinds_in_turn"
_INTERPOLATE = "interpolate"


def settled(config: RunConfig) -> RunConfig:
    """The configuration with each task's kinds named, or none, and with other defaults as the run was begun with them.

    A task that names no kinds takes those of its skill; none where the annotate prompt is its own without `{kind}`, and
    none where the teacher is a bundled model, which knows only the kinds that the demo names.

    Args:
        config: As a file has it; its run may have begun.

    Raises:
        UserError: A skill is unknown, or a manifest of the run is damaged.
    """
    made_of = _made(config, _PAIRS) or {"inputs": {}, "settings": {}}
    tasks = {
        name: data if data.kinds != () else _with_kinds(name, data, config.teacher, made_of["inputs"])
        for name, data in config.tasks.items()
    }
    drawn, levelled = _as_drawn(config.annotate, made_of["settings"]), _as_levelled(config)
    return config.model_copy(update={"tasks": tasks, "annotate": drawn, "level": levelled})


def _made(config: RunConfig, artifact: str) -> dict[str, Any] | None:
    """What an artifact of the run was made of, or is being made of."""
    return read_manifest(config.run / artifact) or read_begun(config.run / artifact)


def _as_levelled(config: RunConfig) -> LevelSettings:
    """The settings that the user left out, as the run's student is trained; the present defaults where none is."""
    made = _made(config, STUDENT_FOLDER)
    if _INTERPOLATE in config.level.model_fields_set:
        return config.level
    interpolates = made is None or made["settings"].get(f"level.{_INTERPOLATE}", False)
    return config.level.model_copy(update={_INTERPOLATE: interpolates})


def _as_drawn(annotate: AnnotateSettings, settings: Mapping[str, Any]) -> AnnotateSettings:
    """The settings that the user left out, as the run's pairs were drawn; the present defaults where none were."""
    former: dict[str, Any] = {_IN_TURN: True}
    if settings:
        former[_IN_TURN] = settings.get(f"annotate.{_IN_TURN}", False)
        if settings.get(f"annotate.{_TOP_P}", _FORMER_TOP_P) == _FORMER_TOP_P:
            former[_TOP_P] = _FORMER_TOP_P
    return annotate.model_copy(update={key: former[key] for key in former.keys() - annotate.model_fields_set})


def _with_kinds(name: str, data: TaskData, teacher: str, inputs: Mapping[str, str]) -> TaskData:
    skill, _ = parts_of_task(name, data.skill, data.benchmark)
    own = skill.kinds or None
    untaught = is_bundled(teacher) and KIND_FIELD not in (data.annotate_prompt or skill.annotate_prompt)
    default = None if untaught else default_kinds(data, skill) or None
    choices = [data.model_copy(update={"kinds": kinds}) for kinds in (default, None, own)]
    asked = inputs.get(f"annotate prompt of {name}")
    return next((each for each in choices if task_of(name, each).annotate_digest == asked), choices[0])
