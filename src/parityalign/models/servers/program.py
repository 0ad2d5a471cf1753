"""A program that serves models: where it is found, its command line, and what its failures mean."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import httpx2

from parityalign import models
from parityalign.config import EngineSettings, Hosting, LoadingSettings, ServerSettings, fingerprint_of_files
from parityalign.core import Remote, UserError, printable
from parityalign.models.gpu_memory import with_who_holds_it
from parityalign.models.servers.started import StartedModel

_SECONDS_FOR_A_VERSION = 60.0
_PIXELS_A_TOKEN = 14 * 14
"""The fewest in the usual families: a token for each patch of 14 pixels a side."""
_TILING = 1024
"""Tokens for the small copy of the whole picture, and between tiles."""
_LARGEST_PICTURE = 16_384
"""What Qwen-VL's largest picture takes; other families take fewer tokens."""
_PROMPT = 2048
"""More than the longest prompt and chat template."""
_ON_THE_COMMAND_LINE = frozenset({"gpu_memory_utilization", "tensor_parallel", "data_parallel", "max_length"})
_RAISED = re.compile(r"(?:^|[\s\])])\w*(?:Error|Exception): \S")
"""The first exception of a log is the cause of the others."""
_NOT_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "VLLM_API_KEY")
"""What would lead the server's Python into the packages of this one, and a key that it would then ask us for."""


class Start(NamedTuple):
    """What a command line is made of."""

    folder: Path
    """Of the model's files."""
    name: str
    """Under which the model is served, different each time."""
    port: int
    loading: LoadingSettings
    engine: EngineSettings
    length: int | None
    """Most tokens of a picture, prompt and reply together; None: whatever the model takes."""


class Trouble(NamedTuple):
    """What a server's words mean."""

    words: str
    """A regular expression."""
    advice: str
    """What to do."""
    of_gpu_memory: bool = False
    """Whether a GPU has too little memory free: then who holds it is told, too."""


PORT_TAKEN = Trouble(
    r"(?i)^(?!.*\b(?:re)?trying\b).*(?:address already in use|port \d+ is (?:already )?in use|Errno 98\b)",
    "Run the same command.",
)
"""Another process took the port between the choice and the start; then another one is tried. Servers that look for
another port of their own, for their parts, say so and go on."""
_KILLED = Trouble(
    r"^\[parityalign\] the server was ended by signal 9",
    "It was killed: by somebody, or by the system, as memory had run out (dmesg tells).",
)


def engine_options(start: Start, *, length: str, memory: str, tensor: str, data: str) -> list[str]:
    """Options of a command line for what `engine` says, and for code beside the model.

    Args:
        start: What the command line is made of.
        length: The program's name for the most tokens of prompt and reply.
        memory: For `gpu_memory_utilization`.
        tensor: For `tensor_parallel`; 1 is every program's default.
        data: For `data_parallel`, likewise.
    """
    engine = start.engine
    values = {
        length: start.length,
        memory: engine.gpu_memory_utilization,
        tensor: engine.tensor_parallel if engine.tensor_parallel > 1 else None,
        data: engine.data_parallel if engine.data_parallel > 1 else None,
    }
    given = [part for name, value in values.items() if value for part in (name, str(value))]
    return [*given, *(["--trust-remote-code"] if start.loading.remote_code else [])]


@dataclass(frozen=True)
class ServerProgram:
    """A program, as `Backend.serve`."""

    name: str
    """Its name on PATH, and the kind of its models."""
    arguments: Callable[[Start], list[str]]
    """Those of its command line, without the program."""
    install: str
    """How to get it, in one line."""
    troubles: Sequence[Trouble] = ()
    """What it says when it cannot go on; the first that fits counts."""
    health: str = "/health"
    """What answers with 200 when it is ready."""
    renames: bool = True
    """Whether it serves a model under a name of our choice, which shows that it is the server that was started."""
    changes_answers: frozenset[str] = frozenset()
    """Options of `engine.extra` that say what the model is, or what it answers."""
    takes: frozenset[str] = _ON_THE_COMMAND_LINE
    """Settings of `engine` that its command line knows."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set unless they are there."""
    beside_us: bool = False
    """Whether the one in this program's own environment is taken."""

    def connect(self, location: str, loading: LoadingSettings, server: ServerSettings, hosting: Hosting) -> Remote:
        """The model that it will serve."""
        return StartedModel(self, location, loading, server, hosting)

    def check(self, location: str, loading: LoadingSettings, engine: EngineSettings) -> None:
        """Refuses what shows before it is started: no program, no such model, settings that it does not take.

        Raises:
            UserError: One of these.
        """
        self.find(engine)
        for setting in ("quantise", "device_map", "attention", "replicas"):
            given = getattr(loading, setting)
            if given != LoadingSettings.model_fields[setting].default:
                raise UserError(
                    f"{self.name}:{location} is loaded by a server, for which loading has no {setting} ({given}). "
                    "Leave it out: name weights that are quantised, and see engine.tensor_parallel, "
                    "engine.data_parallel and engine.extra."
                )
        given = engine.model_dump(exclude_defaults=True).keys() & _ON_THE_COMMAND_LINE
        if unknown := sorted(given - self.takes):
            raise UserError(f"{self.name} has no engine.{unknown[0]}. Leave it out, or see engine.extra.")
        models.refuse_damaged(location, models.model_folder(location, loading, weights=False))

    def find(self, engine: EngineSettings) -> Path:
        """Where the program is.

        Raises:
            UserError: There is none, or this system has no process groups.
        """
        if os.name != "posix":
            raise UserError(
                f"{self.name}: models are served on Linux and macOS only. Start the server yourself and write its "
                "address: http://HOST:PORT/v1#NAME."
            )
        given = str(engine.program or os.environ.get(self._variable, ""))
        if given:
            return self._named(given)
        own = Path(sys.executable).parent
        places = [place for place in os.get_exec_path() if Path(place).absolute() != own]
        found = shutil.which(self.name, path=os.pathsep.join([str(own), *places] if self.beside_us else places))
        if found:
            return Path(found).absolute()
        raise UserError(
            f"no {self.name} was found on PATH (that in parityalign's own environment does not count).\n"
            f"Install it into an environment of its own: {self.install}\n"
            f"Then name it: engine.program: PATH, or the environment variable {self._variable}."
            if not self.beside_us
            else f"no {self.name} was found.\nInstall it: {self.install}"
        )

    def found(self, engine: EngineSettings) -> str:
        """The program and its version."""
        program = self.find(engine)
        return f"{self.name} {_version(program, self.name) or '(version unknown)'}: {program}"

    def numbers(self, engine: EngineSettings) -> dict[str, object]:
        """What in `engine.extra` changes answers; files and folders by their content."""
        chosen: list[str] = []
        takes = False
        for said in engine.extra:
            if said.startswith("-"):
                takes = said.partition("=")[0] in self.changes_answers
            chosen += [_with_content(said)] if takes else []
        return {"extra": chosen} if chosen else {}

    def command(
        self, folder: Path, served_name: str, port: int, loading: LoadingSettings, hosting: Hosting
    ) -> list[str]:
        """The whole command line."""
        engine = hosting.engine
        needed = length_of(folder, loading, hosting.reply_tokens + loading.thinking_tokens)
        start = Start(folder, served_name, port, loading, engine, engine.max_length or needed)
        return [str(self.find(engine)), *self.arguments(start), *engine.extra]

    async def is_ready(self, client: httpx2.AsyncClient, address: str, served_name: str) -> bool:
        """Whether the server that was started answers at an address, and no other one."""
        try:
            if not (await client.get(address + self.health)).is_success:
                return False
            return not self.renames or served_name in (await client.get(f"{address}/v1/models")).text
        except httpx2.HTTPError:
            return False

    def is_about_the_port(self, lines: Sequence[str]) -> bool:
        """Whether a server ended since another process had its port."""
        return any(re.search(PORT_TAKEN.words, line) for line in lines)

    def environ(self) -> dict[str, str]:
        """The environment of the server."""
        ours = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        return {**self.environment, **ours}

    def meaning(self, lines: Sequence[str]) -> tuple[str, str]:
        """The line of a log that tells why the server ended, and what to do; empty: nobody knows."""
        for trouble in (PORT_TAKEN, *self.troubles, _KILLED):
            for line in lines:
                if re.search(trouble.words, line):
                    return line, with_who_holds_it(trouble.advice) if trouble.of_gpu_memory else trouble.advice
        return next((line for line in lines if _RAISED.search(line)), ""), ""

    @property
    def _variable(self) -> str:
        return f"PARITYALIGN_{self.name.upper()}"

    def _named(self, given: str) -> Path:
        found = shutil.which(Path(given).expanduser())
        if not found:
            what = "is not there" if not Path(given).expanduser().exists() else "is no program that may be run"
            raise UserError(
                f"{printable(given)}, which engine.program or {self._variable} names, {what}. Name the program itself, "
                f"such as ENVIRONMENT/bin/{self.name}; to install it: {self.install}"
            )
        return Path(found).absolute()


def length_of(folder: Path, loading: LoadingSettings, reply_tokens: int) -> int | None:
    """Most tokens that a run's question about one picture can take; None: the model does not say what it can take.

    A server that keeps room for all that a model can take (128,000 tokens in many) may not find that much memory.

    Args:
        folder: Of the model's files.
        loading: Most pixels of a picture.
        reply_tokens: Most tokens of a reply.
    """
    said = models.read_object(folder / "config.json")
    parts = [said, *(part for part in said.values() if isinstance(part, dict))]
    limits = [part["max_position_embeddings"] for part in parts if "max_position_embeddings" in part]
    # The tower of pictures has positions of its own, which are fewer.
    most = max((limit for limit in limits if isinstance(limit, int)), default=None)
    picture = loading.max_pixels // _PIXELS_A_TOKEN + _TILING if loading.max_pixels else _LARGEST_PICTURE
    return most and min(most, picture + _PROMPT + reply_tokens)


def _with_content(said: str) -> str:
    """An argument, with a digest in the place of a full path."""
    option, equals, value = said.rpartition("=")
    named = os.path.isabs(value) and os.path.exists(value)
    return f"{option}{equals}{fingerprint_of_files(value, LoadingSettings())}" if named else said


def _version(program: Path, name: str) -> str:
    """The version of a program, from its package where its environment is seen, which is quick; else as it says."""
    python = program.parent / "python"
    asked = f"import importlib.metadata as m; print(m.version({json.dumps(name)}))"
    for command in ([str(python), "-I", "-c", asked], [str(program), "--version"]):
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_FOR_A_VERSION, check=True)
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            continue
        if found := re.search(r"\d+\.\d[\w.+]*", told.stdout):
            return found[0]
    return ""
