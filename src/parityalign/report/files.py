"""Reads the files of a run folder in any state: finished, interrupted, or missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from parityalign.core import Record, Stream, UserError, read_manifest, refuse_changed, stale_inputs, unsealed

R = TypeVar("R", bound=Record)


def read_records(path: Path, record_type: type[R]) -> Iterator[R]:
    """The complete lines of a stream; none if there is no file.

    Raises:
        UserError: a line is not such a record, or the file is not as its finished artifact has it.
    """
    refuse_changed(path)
    return iter(Stream(path, record_type, read_only=True))


def read_record(path: Path, record_type: type[R]) -> R | None:
    """The record in a JSON file, None if there is no file.

    Raises:
        UserError: the file holds something else.
    """
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_bytes())
        return record_type.model_validate_json(json.dumps(unsealed(said) if isinstance(said, dict) else said))
    except (ValueError, RecursionError) as problem:
        raise _unreadable(str(path), problem) from problem


def is_current(run: Path, artifact: str) -> bool:
    """Whether an artifact is finished and made from the run's current artifacts."""
    return read_manifest(run / artifact) is not None and not stale_inputs(run, artifact)


def read_settings(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a run's `run.yaml` and its content; both empty if there is none.

    Raises:
        UserError: the file is not a YAML mapping.
    """
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        said = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise _unreadable(str(path), problem) from problem
    if not isinstance(said, dict):
        raise _unreadable(str(path), ValueError("not a mapping"))
    return text, said


def _unreadable(where: str, problem: Exception) -> UserError:
    told = problem.errors()[0]["msg"] if isinstance(problem, ValidationError) else str(problem)
    return UserError(
        f"{where}: cannot be read for the report ({told}). "
        "Remove the file and run its stage again, or restore it from a copy."
    )
