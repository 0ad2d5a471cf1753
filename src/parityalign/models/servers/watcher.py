"""Runs a server, and ends it with all its processes when whoever wanted it is gone, by `kill -9` too.

    python -I -S watcher.py GRACE COMMAND...

Started as a process of its own that leads a process group, with a pipe as its standard input. The pipe ends when the
other end is closed, on purpose or with its process, whatever the system. Imports only what starts quickly.
"""

import os
import signal
import subprocess
import sys
import threading
import time


def watch(grace: float, command: list[str]) -> None:
    """Runs the command until it ends, or standard input does; then nothing of this process group is left.

    Args:
        grace: Seconds between asking the processes to end and killing them.
        command: The server's command line.
    """
    for each in (signal.SIGTERM, signal.SIGINT):  # meant for the server, which would inherit that they are ignored
        signal.signal(each, lambda *_: None)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as problem:
        _note(f"cannot start {command[0]}: {problem.strerror}")
        return
    threading.Thread(target=_end_with_input, args=(grace,), daemon=True).start()
    status = server.wait()
    _note(f"the server ended with status {status}" if status >= 0 else f"the server was ended by signal {-status}")
    os.killpg(0, signal.SIGKILL)  # what it may have left, and this process


def _end_with_input(grace: float) -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(grace)
    os.killpg(0, signal.SIGKILL)


def _note(text: str) -> None:
    os.write(1, f"\n[parityalign] {text}\n".encode("utf-8", "replace"))


if __name__ == "__main__":
    watch(float(sys.argv[1]), sys.argv[2:])
