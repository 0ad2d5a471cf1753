"""An OpenAI-compatible server that fails as a test tells it to, in a thread of the test's process."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Script = Callable[[dict, int], Awaitable[bytes | None]]
"""(the request's JSON, how often its prompt was sent before) -> the bytes to send back; None: break the connection."""


@dataclass
class Served:
    """What the server was sent and what it does about it."""

    script: Script
    models: tuple[str, ...] = ("m",)
    url: str = ""
    asked: list[dict] = field(default_factory=list)
    """The JSON of every chat request, in the order of arrival."""
    times: Counter[str] = field(default_factory=Counter)
    """How often each prompt was sent."""
    headers: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while not writer.is_closing():
                await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line for line in head.splitlines() if line.lower().startswith("content-length:")]
        content = await reader.readexactly(int(lengths[0].partition(":")[2]) if lengths else 0)
        self.headers.append(head)
        method, path, _ = head.split(" ", 2)
        sent = await self.responds(method, path, content)
        if sent is None:
            writer.transport.abort()
            return
        writer.write(sent)
        await writer.drain()

    async def responds(self, method: str, path: str, content: bytes) -> bytes | None:
        """The response to a request; None: the connection breaks."""
        if method == "GET":
            return answer(json.dumps({"data": [{"id": name} for name in self.models]}))
        return await self.chat(json.loads(content))

    async def chat(self, body: dict) -> bytes | None:
        before = self.times[prompt_of(body)]
        self.times[prompt_of(body)] += 1
        self.asked.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self.script(body, before)
        finally:
            self.in_flight -= 1


S = TypeVar("S", bound=Served)


def answer(content: str, status: str = "200 OK", *headers: str, kind: str = "application/json") -> bytes:
    """An HTTP response."""
    body = content.encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def reply(
    text: str, *, finish: str = "stop", usage: tuple[int, int] | None = (10, 2), model: str = "", **choice: object
) -> bytes:
    """A reply as a chat endpoint gives it; `usage` is prompt and completion tokens, `model` the one that answered."""
    said: dict = {
        **({"model": model} if model else {}),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **choice}],
    }
    if usage:
        said["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return answer(json.dumps(said))


def prompt_of(body: dict) -> str:
    """The text that was asked."""
    return body["messages"][0]["content"][-1]["text"]


def image_of(body: dict) -> str:
    """The image's data URL; empty where there is none."""
    first = body["messages"][0]["content"][0]
    return first["image_url"]["url"] if first["type"] == "image_url" else ""


@contextmanager
def serving(script: Script, models: tuple[str, ...] = ("m",), kind: type[S] = Served) -> Iterator[S]:
    """Serves at `served.url` until the `with` ends."""
    served, ready, loop = kind(script, models), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        server = await asyncio.start_server(served.connected, "127.0.0.1", 0, limit=2**24)
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.02)
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    stop = threading.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        if not ready.wait(10):
            raise TimeoutError("the server did not come up")
        yield served
    finally:
        stop.set()
        thread.join()
        loop.close()
