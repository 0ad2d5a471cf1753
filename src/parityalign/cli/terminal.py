"""The one way of lines to the terminal; tables and bars take `pipeline.plain_console`, which writes the same."""

import sys
import traceback
import warnings
from types import TracebackType

from parityalign.core import WorkFailed, printable


def say(text: str, *, error: bool = False) -> None:
    """Prints lines, with everything written out that a terminal would obey.

    Raises:
        WorkFailed: The output takes no more, as a full disk.
        BrokenPipeError: Nobody reads it any more.
    """
    try:
        print(printable(text), file=sys.stderr if error else sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise WorkFailed(f"cannot write the output: {problem.strerror}") from problem


def say_everything_so() -> None:
    """Tracebacks of bugs, and warnings of libraries, are printed in the same way; no encoding is in their way."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # Python's own streams can
    usual = warnings.formatwarning
    warnings.formatwarning = lambda *given, **named: printable(usual(*given, **named))
    sys.excepthook = _say_traceback


def _say_traceback(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    say("".join(traceback.format_exception(kind, problem, trace)).rstrip("\n"), error=True)
