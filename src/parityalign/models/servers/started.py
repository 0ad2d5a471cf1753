"""A model behind a server that the run starts when something is asked, and starts again when it ends by itself."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2

from parityalign import models
from parityalign.config import Hosting, LoadingSettings, ServerSettings
from parityalign.core import Decoding, NoReply, Request, Said, UserError, WorkFailed
from parityalign.models.backends.openai import PLACEHOLDERS, OpenAIModel
from parityalign.models.chat_templates import THINKING
from parityalign.models.servers.process import ServerProcess

if TYPE_CHECKING:
    from parityalign.models.servers.program import ServerProgram

_HOST = "127.0.0.1"
_PORTS = 3
"""How many are tried: another process may take one between the choice and the start."""
_TOLD_EVERY = 30.0
"""Seconds between two lines about a server that is not ready."""
_BETWEEN_LOOKS, _LONGEST_LOOK = 0.25, 2.0
"""Seconds between two questions whether a server is ready, and for its answer."""
_LAST_LINES = 12
"""Lines of a log in a message."""


class StartedModel:
    """A `Remote`, `Connected` and `Started`.

    Attributes:
        name: KIND:LOCATION.
    """

    def __init__(
        self,
        program: "ServerProgram",
        location: str,
        loading: LoadingSettings,
        server: ServerSettings,
        hosting: Hosting,
    ) -> None:
        """Starts nothing yet."""
        self.name = f"{program.name}:{location}"
        self._program = program
        self._location = location
        self._loading = loading
        self._hosting = hosting
        self._server = server
        self._process: ServerProcess | None = None
        self._restarts = 0
        self._has_answered = False
        self._given_up: UserError | None = None
        self._one_at_a_time = asyncio.Lock()

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """As for a local model, by its own processor; the usual ones where its family is not known here."""
        as_it_is = self._loading.model_copy(update={"max_pixels": None})
        try:
            return models.Prompter(models.open_processor(self._location, as_it_is), self.name).special_tokens
        except UserError:
            return PLACEHOLDERS

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[None]:
        """Connections to the server, whenever it is up."""
        self._one_at_a_time, self._given_up = asyncio.Lock(), None
        async with self._asked.connection():
            yield

    async def ready(self) -> None:
        """Waits until the server answers; starts it, or starts it again.

        Raises:
            UserError: It does not start, or has ended too often; the message has the end of its log.
        """
        if self._is_up():
            return
        async with self._one_at_a_time:
            if self._given_up:
                raise self._given_up
            if not self._is_up():
                try:
                    await self._bring_up()
                except UserError as problem:
                    self._given_up = problem
                    raise

    async def ask(self, request: Request, decoding: Decoding) -> Said:
        """Sends one request.

        Raises:
            NoReply: There was no reply. Where the server has ended, the question is asked again when it is back.
            UserError: The image cannot be read.
        """
        try:
            said = await self._asked.ask(request, decoding)
        except NoReply as problem:
            if self._is_up():
                raise
            raise NoReply(str(problem), again=True, amended=True) from None
        self._has_answered = True
        return replace(said, model="")  # the server's own name of it, made up for this start

    def close(self) -> None:
        """Ends the server."""
        process, self._process = self._process, None
        if process:
            process.stop()

    @cached_property
    def _folder(self) -> Path:
        return models.model_folder(self._location, self._loading, weights=True)

    @cached_property
    def _asked(self) -> OpenAIModel:
        """The model, wherever the server listens at the moment."""
        variables = dict(self._loading.chat_template_kwargs)
        if any(THINKING in template for template in _templates(self._folder)):
            variables = {THINKING: False, **variables}
        own = {"chat_template_kwargs": variables} if variables else {}
        asked = self._server.model_copy(update={"extra_body": own | self._server.extra_body})
        return OpenAIModel(f"http://{_HOST}/v1", "", asked, max_pixels=self._loading.max_pixels)

    def _is_up(self) -> bool:
        return self._process is not None and self._process.running

    async def _bring_up(self) -> None:
        if self._process:
            ended = self._told(self._process, "ended while it was asked")
            self.close()
            most = self._hosting.engine.max_restarts
            if not self._has_answered:
                raise WorkFailed(f"{ended}\nIt has answered nothing yet, so it is not started again.")
            if self._restarts >= most:
                raise WorkFailed(f"{ended}\nAnswers so far are kept; engine.max_restarts is {most}.")
            self._restarts += 1
            self._hosting.tell(f"{ended}\nIt is started again ({self._restarts} of {most}).")
        for left in reversed(range(_PORTS)):
            process, port, served_name = self._launch()
            try:
                problem = await self._until_ready(process, port, served_name)
            except BaseException:  # interrupted, too
                process.stop()
                raise
            if not problem:
                self._process = process
                self._asked.move(f"{_address(port)}/v1", served_name)
                return
            process.stop()
            if not (left and self._program.is_about_the_port(process.lines())):
                raise WorkFailed(problem)

    def _launch(self) -> tuple[ServerProcess, int, str]:
        """A process that has just begun, its port, and the name that it will give the model."""
        engine, port = self._hosting.engine, _free_port()
        own_name = f"{Path(self._location).name}-{secrets.token_hex(4)}"
        served_name = own_name if self._program.renames else str(self._folder)
        command = self._program.command(self._folder, served_name, port, self._loading, self._hosting)
        log = self._hosting.logs / f"{self._program.name}.log"
        self._hosting.tell(f"starting {self._program.found(engine)} for {self._location}; its log is {log}")
        return ServerProcess(command, log, self._program.environ()), port, served_name

    async def _until_ready(self, process: ServerProcess, port: int, served_name: str) -> str:
        """Waits; returns why it will not become ready, in words, or nothing."""
        began = told = time.monotonic()
        limit = self._hosting.engine.start_timeout
        # A server on this machine is not asked through the proxy of the environment.
        async with httpx2.AsyncClient(trust_env=False, timeout=_LONGEST_LOOK) as client:
            while process.running:
                if await self._program.is_ready(client, _address(port), served_name) and process.listens(port):
                    self._hosting.tell(f"{self.name} is ready after {time.monotonic() - began:.0f} s")
                    return ""
                now = time.monotonic()
                if now - began > limit:
                    return self._told(process, f"was not ready after {limit:g} s (engine.start_timeout)")
                if now - told > _TOLD_EVERY:
                    told = now
                    last = process.lines()[-1:] or ["nothing yet"]
                    self._hosting.tell(f"{self.name}: not ready after {now - began:.0f} s; its log says: {last[0]}")
                await asyncio.sleep(_BETWEEN_LOOKS)
        return self._told(process, "ended before it was ready")

    def _told(self, process: ServerProcess, what: str) -> str:
        """What happened, in the server's words and in ours."""
        lines = process.lines()
        line, advice = self._program.meaning(lines)
        shown = "\n".join(f"  | {each}" for each in lines[-_LAST_LINES:]) or "  | (it wrote nothing)"
        reason = f"\nIt says: {line.strip()}" if line else ""
        return (
            f"the server of {self.name} {what}.{reason}\nThe end of its log, {process.log}:\n{shown}\n"
            f"{advice or 'Look there for the reason; engine.extra takes further arguments for it.'}"
        )


def _templates(folder: Path) -> list[str]:
    """The files that may hold a model's chat template."""
    names = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    return [(folder / name).read_text("utf-8", "replace") for name in names if (folder / name).is_file()]


def _address(port: int) -> str:
    return f"http://{_HOST}:{port}"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((_HOST, 0))
        port: int = found.getsockname()[1]
        return port
