"""How a function becomes a command of the app."""

from collections.abc import Callable
from functools import wraps
from typing import Annotated, ParamSpec

import typer

import parityalign
from parityalign.cli.telling import INTERRUPTED, Told, telling
from parityalign.cli.terminal import say
from parityalign.core import Interrupted, UserError, disk_faults_in_words

P = ParamSpec("P")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="To begin with: parityalign init, parityalign plan RUN.yaml, parityalign run RUN.yaml.",
)


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"parityalign {parityalign.__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Bring a small vision-language model to parity with a large one on your own images, without labels."""


def command(
    name: str, *examples: str, help: str | None = None
) -> Callable[[Callable[P, Told | None]], Callable[..., None]]:
    """Registers a function as a command; a UserError ends it with a message and an exit status, not a traceback.

    What it returns is printed where `--json` is given.

    Args:
        name: The command's name.
        examples: How it is used, without the program's name.
        help: What it does; None: the function's docstring.
    """

    def made(work: Callable[P, Told | None]) -> Callable[..., None]:
        told = telling(work)

        @wraps(told)
        def ended(*args: object, **kwargs: object) -> None:
            try:
                with disk_faults_in_words():
                    told(*args, **kwargs)
            except UserError as problem:
                say(f"parityalign: {problem}", error=True)
                raise typer.Exit(problem.exit_status) from problem
            except KeyboardInterrupt as interrupt:
                what = str(interrupt) if isinstance(interrupt, Interrupted) else "Resume with the same command."
                say(f"parityalign: interrupted. {what}", error=True)
                raise typer.Exit(INTERRUPTED) from interrupt

        shown = "\n\n".join(f"parityalign {example}" for example in examples)
        app.command(name, help=help, epilog=f"Examples:\n\n{shown}")(ended)
        return ended

    return made
