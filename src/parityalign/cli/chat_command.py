"""The command that puts one's own pictures and questions to a run's models."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from parityalign import pipeline
from parityalign.cli.commands import command
from parityalign.cli.options import RunArgument
from parityalign.cli.telling import JsonOption, Told
from parityalign.cli.terminal import say
from parityalign.config import RunConfig, config_in
from parityalign.core import UserError, did_you_mean
from parityalign.data import Unfit, read_picture

_AFTER = "after"
_WHO = ("before", _AFTER, "teacher")
"""As in `pipeline.TriedModels`, which is loaded only when something is asked."""


class _Asked(NamedTuple):
    """One model's answer."""

    picture: Path
    question: str
    task: str
    model: str
    text: str
    problem: str
    seconds: float


@command("chat", "chat runs/signs", "chat runs/signs --picture door.jpg --question 'What does the sign say?'")
def chat_command(  # noqa: PLR0913 - an option is a parameter
    run: RunArgument,
    picture: Annotated[Path | None, typer.Option(help="A picture. (default: asks for one)")] = None,
    question: Annotated[str | None, typer.Option(help="A question about it. (default: asks for one)")] = None,
    task: Annotated[str | None, typer.Option(help="The task whose prompt is used. (default: the first)")] = None,
    of: Annotated[
        list[str] | None,
        typer.Option(help="Ask this model: before, after or teacher; again for another. (default: all there are)"),
    ] = None,
    as_json: JsonOption = False,
) -> Told:
    """Ask the student before and after levelling, and the teacher, about a picture of yours; nothing is kept."""

    config = config_in(run)
    task = _known_task(config, task)
    if as_json and not (picture and question):
        raise UserError("chat --json asks nobody: give --picture and --question")
    with closing(pipeline.TriedModels(config)) as models:
        who = _chosen(of, models)
        asked = [
            answer
            for image, words in _asked_for(picture, question)
            for answer in _answers(models, who, image, words, task)
        ]
    alone = picture is not None and question is not None
    failed = alone and any(each.problem for each in asked)
    return Told(lambda: {"run": config.run, "answers": asked}, status=int(failed))


def _known_task(config: RunConfig, task: str | None) -> str:
    names = list(config.tasks)
    if task is not None and task not in names:
        raise UserError(f"the run has no task {task!r}. {did_you_mean(task, names)}")
    return task or names[0]


def _chosen(of: Sequence[str] | None, models: "pipeline.TriedModels") -> list[str]:
    """The models to ask, the large one last."""
    for name in of or ():
        if name not in _WHO:
            raise UserError(f"there is no model {name!r} in a run. {did_you_mean(name, list(_WHO))}")
    if of:
        return [name for name in _WHO if name in of]
    if not models.is_levelled:
        say("there is no student after levelling yet", error=True)
        return [name for name in _WHO if name != _AFTER]
    return [*_WHO]


def _answers(
    models: "pipeline.TriedModels", who: Sequence[str], picture: Path, question: str, task: str
) -> Iterator[_Asked]:
    """Each model's answer, told as soon as it is there."""
    for name in who:
        said = pipeline.try_model(lambda: models, name, picture, question, task)
        say(f"{name}: {said.problem or said.text}   ({said.seconds:,.1f} s)", error=bool(said.problem))
        yield _Asked(picture, question, task, name, said.text, said.problem, said.seconds)


def _asked_for(picture: Path | None, question: str | None) -> Iterator[tuple[Path, str]]:
    """Pictures and questions: those that were given, else until somebody enters nothing."""
    if picture is not None:
        if fault := _fault_of(picture):
            raise UserError(fault)
        yield from ((picture, each) for each in ([question] if question else _typed("question")))
        return
    for line in _typed("picture"):
        path = Path(line.strip("'\"")).expanduser()
        if fault := _fault_of(path):
            say(fault, error=True)
            continue
        yield from ((path, each) for each in ([question] if question else _typed("question")))


def _fault_of(path: Path) -> str:
    try:
        read_picture(path)
    except Unfit as unfit:
        return f"{path} is no picture that can be used: {unfit}"
    except OSError as problem:
        return f"{path} cannot be read: {problem.strerror}"
    return ""


def _typed(what: str) -> Iterator[str]:
    """Lines that somebody types, until an empty one or the end of the input."""
    while True:
        try:
            line = input(f"{what} (nothing: back): ").strip()
        except EOFError:
            say("")
            return
        if not line:
            return
        yield line
