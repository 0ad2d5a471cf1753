"""Serves the viewer on this machine alone, until it is interrupted."""

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import uvicorn

from parityalign.core import UserError
from parityalign.viewer.app import application
from parityalign.viewer.guard import TOKEN
from parityalign.viewer.watching import watch_runs

LOOPBACK = "127.0.0.1"


def serve_runs(paths: Sequence[Path], *, port: int, say: Callable[[str], None]) -> None:
    """Serves until interrupted.

    Args:
        paths: Run folders.
        port: On the loopback interface; 0: a free one.
        say: Told the address, with its token.

    Raises:
        UserError: One is not a run folder, or the port is taken.
    """
    runs = watch_runs(paths)
    try:
        with closing(_listening(port)) as listener:
            app = application(runs)
            say(f"view: http://{LOOPBACK}:{listener.getsockname()[1]}/?{TOKEN}={app.token}   (Ctrl-C ends it)")
            for run in runs:
                if run.marks.advice:
                    say(run.marks.advice)
            config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        for run in runs:
            run.close()


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except OSError as problem:
        listener.close()
        taken = problem.errno == errno.EADDRINUSE
        why = "something else listens there" if taken else str(problem.strerror)
        raise UserError(f"cannot listen on port {port}: {why}. Name another with --port, or leave it out") from problem
    return listener
