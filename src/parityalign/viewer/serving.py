"""Serves the viewer on this machine alone, until it is interrupted."""

import errno
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from parityalign.core import UserError, printable
from parityalign.viewer.app import application
from parityalign.viewer.guard import TOKEN
from parityalign.viewer.trying import Trials
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends by the same way, which cleans up
    runs, trials = watch_runs(paths), Trials()
    try:
        with closing(_listening(port)) as listener:
            app = application(runs, trials)
            say(f"view: http://{LOOPBACK}:{listener.getsockname()[1]}/?{TOKEN}={app.token}   (Ctrl-C ends it)")
            for run in runs:
                if run.marks.advice:
                    say(run.marks.advice)
            uvicorn.Server(_config(app)).run(sockets=[listener])
    finally:
        trials.close()
        for run in runs:
            run.close()


def _config(app: ASGIApp) -> uvicorn.Config:
    """Quiet, but for what is a bug; whatever such a line holds is printed, and not obeyed by the terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableLines())
    logging.getLogger("uvicorn").handlers = [handler]
    # By the address that the request says: there is no proxy.
    quiet: dict[str, Any] = {"log_config": None, "log_level": "warning", "access_log": False, "server_header": False}
    return uvicorn.Config(app, http="h11", ws="none", lifespan="off", proxy_headers=False, **quiet)


class _PrintableLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()  # who opens the address at once waits, and is not refused
    except OSError as problem:
        listener.close()
        taken = problem.errno == errno.EADDRINUSE
        why = "something else listens there" if taken else str(problem.strerror)
        raise UserError(f"cannot listen on port {port}: {why}. Name another with --port, or leave it out") from problem
    return listener
