"""The program: its commands in the order of its help, and how it begins.

Exit status: 0 done, 1 the work failed (what was computed is kept), 2 the request was wrong, 130 interrupted.
Packages load their modules lazily, so help, `score` and `identify --pairs` are quick and need no torch.
"""

import signal

import typer

from parityalign.cli import chat_command as chat_command
from parityalign.cli import file_commands as file_commands
from parityalign.cli.commands import app as app
from parityalign.cli.run_commands import add_stage_commands
from parityalign.cli.terminal import say_everything_so
from parityalign.core import part_names, wait_passively
from parityalign.stages import STAGES

_FIRST = ("init", "demo", "doctor", "plan", "preview", "run")
_LAST = ("status", "view", "report", "score", "export", "chat", "answers")


def _put_in_order() -> None:
    """Puts the commands as a newcomer needs them: what begins a run, its stages, what is done with it then."""
    order = [*_FIRST, *(stage.name for stage in STAGES), *part_names("stages"), *_LAST]
    app.registered_commands.sort(key=lambda each: order.index(each.name or ""))


add_stage_commands()
_put_in_order()


def main() -> None:
    """Does what the arguments of this process say, and ends it."""
    say_everything_so()
    wait_passively()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    typer.main.get_command(app)()  # not app(), which has tracebacks printed its own way
