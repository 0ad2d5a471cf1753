"""What a command tells programs: with `--json` one JSON object on standard output, and all else on standard error."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, is_dataclass
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import BaseModel

from parityalign.cli.terminal import say
from parityalign.core import UserError, disk_faults_in_words

INTERRUPTED = 130
AS_JSON = "as_json"
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, and everything else on standard error.")
]


class Told(NamedTuple):
    """What a command has to tell."""

    record: Callable[[], Mapping[str, object]]
    """Gathers everything that its text says, by the names of docs/scripts.md; called only if it is wanted."""
    status: int = 0
    """The exit status."""


def telling(command: Callable[..., Told | None]) -> Callable[..., object]:
    """The command with an option `--json`, if it tells something; whoever has to know of it takes it as `as_json`.

    Everything that is printed meanwhile, by libraries too, goes to standard error then. An error is told as
    `{"error": ..., "exit_status": ...}` before it goes on.
    """
    if signature(command).return_annotation is None:
        return command
    knows = AS_JSON in signature(command).parameters

    @wraps(command)
    def told(*args: object, as_json: bool = False, **kwargs: object) -> None:
        passed = {AS_JSON: as_json} if knows else {}
        work = partial(command, *args, **kwargs, **passed)
        found = _as_json(work) if as_json else work()
        if found and found.status:
            raise typer.Exit(found.status)

    own = [each for each in signature(command).parameters.values() if each.name != AS_JSON]
    option = Parameter(AS_JSON, Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)
    told.__signature__ = signature(command).replace(parameters=[*own, option])  # type: ignore[attr-defined]
    told.__annotations__ = {**command.__annotations__, AS_JSON: JsonOption}
    return told


def _as_json(work: Callable[[], Told | None]) -> Told | None:
    try:
        with redirect_stdout(sys.stderr), disk_faults_in_words():
            found = work()
            record = found.record() if found else {}
    except UserError as problem:
        _say_record({"error": str(problem), "exit_status": problem.exit_status})
        raise
    except KeyboardInterrupt:
        _say_record({"error": "interrupted", "exit_status": INTERRUPTED})
        raise
    _say_record(record)
    return found


def _say_record(record: Mapping[str, object]) -> None:
    say(json.dumps(as_values(record), indent=1, allow_nan=False))


def as_values(found: Any) -> Any:  # noqa: ANN401 - whatever a command has found
    """Records, paths and the like as what JSON has; a number that is not finite, which it has not, as null."""
    if isinstance(found, BaseModel):
        return as_values(found.model_dump(mode="json"))
    if is_dataclass(found) and not isinstance(found, type):
        return as_values(asdict(found))
    if hasattr(found, "_asdict"):
        return as_values(found._asdict())
    if isinstance(found, Mapping):
        return {str(key): as_values(value) for key, value in found.items()}
    if isinstance(found, list | tuple | set | frozenset):
        return [as_values(each) for each in found]
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    return found if found is None or isinstance(found, bool | int) else str(found)
