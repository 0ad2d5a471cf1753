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
from parityalign.core import wait_passively

add_stage_commands()


def main() -> None:
    """Does what the arguments of this process say, and ends it."""
    say_everything_so()
    wait_passively()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    typer.main.get_command(app)()  # not app(), which has tracebacks printed its own way
