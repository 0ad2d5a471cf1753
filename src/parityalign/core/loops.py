"""Asynchronous work from plain functions, also where an event loop runs already, as in a notebook's cell."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


def completed(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the work comes to, in an event loop of its own. Whoever interrupts this cancels the work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    begun = list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]]()

    async def working() -> T:
        begun.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await work()

    with ThreadPoolExecutor(1, thread_name_prefix="loop") as thread:
        done = thread.submit(copy_context().run, asyncio.run, working())
        try:
            return done.result()
        except BaseException:
            for loop, task in begun:
                if task and not done.done():
                    loop.call_soon_threadsafe(task.cancel)
            raise
