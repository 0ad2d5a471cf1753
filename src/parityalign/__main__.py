"""The program `parityalign`, also `python -m parityalign`: its beginning and its end.

Light, so that nearly from the start on Ctrl-C is answered in one line and not with a traceback. It becomes a
KeyboardInterrupt only while a command works: some of the modules that are imported before turn an exception in their
midst into another one.
"""

import _signal as signal  # type: ignore[import-not-found]  # `signal` is this and enumerations, and takes longer to import
import os
import sys

import parityalign

INTERRUPTED = 130


def main() -> None:
    """The entry point of the command."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else whoever started us wants it ignored
    if heard:
        signal.signal(signal.SIGINT, _leave_in_words)
    try:
        parityalign.cli.main()
    finally:
        if heard:
            signal.signal(signal.SIGINT, _leave)
        _flush()


def _leave_in_words(number: int, frame: object) -> None:
    os.write(2, b"parityalign: interrupted while starting. Nothing was changed.\n")
    _leave(number, frame)


def _leave(_number: int, _frame: object) -> None:
    os._exit(INTERRUPTED)  # noqa: TID251 - the program itself; an exception could be lost in what is being imported


def _flush() -> None:
    """Writes what is left of the output; whoever read it may be gone, as in `parityalign ... | head`."""
    try:
        sys.stdout.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter tries again, and says so
        if not isinstance(problem, BrokenPipeError):
            os.write(2, f"parityalign: cannot write the output: {problem.strerror}\n".encode())
            raise SystemExit(1) from problem


if __name__ == "__main__":
    main()
