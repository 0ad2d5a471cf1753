"""Asynchronous work from plain functions, also where an event loop runs already, as in a notebook's cell."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def completed(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the work comes to, in an event loop of its own. Whoever interrupts this cancels the work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    with start_blocking_portal() as portal:
        result: T = portal.call(work)
    return result
