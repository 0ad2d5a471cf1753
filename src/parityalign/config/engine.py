"""Settings of servers that a run starts itself; `schema.py` joins them with the others."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from parityalign.config.base import Settings

_OURS = frozenset("--host --port --served-model-name --model --model-path --api-key".split())
_SECRET = re.compile(r"api.?key|secret|password|token=|hf.?token|credential", re.IGNORECASE)


def _argument(said: str) -> str:
    if said.partition("=")[0] in _OURS:
        raise ValueError(f"is {said.partition('=')[0]!r}, which parityalign gives to the server itself")
    if _SECRET.search(said):
        raise ValueError("looks like a secret, which would be written into run.yaml; put it into the environment")
    return said


def _as_text(said: object) -> object:
    """Numbers need no quotes in YAML."""
    return str(said) if isinstance(said, int | float) and not isinstance(said, bool) else said


class EngineSettings(Settings):
    """How a server is started for a model that is named by its program, such as `vllm:OWNER/NAME`.

    Answers hang on `extra` alone, and there only on options that say what the model is or does.
    """

    program: Path | None = None
    """The server's program. None: what the environment variable `PARITYALIGN_VLLM` (`_SGLANG`, `_TRANSFORMERS`)
    names, else the first on PATH."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Share of each GPU's memory that the server takes. None: as the server does."""
    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    """GPUs that share one copy of the model."""
    data_parallel: int = Field(default=1, ge=1, le=1024)
    """Copies of the model, each on GPUs of its own."""
    max_length: int | None = Field(default=None, ge=1)
    """Most tokens of a picture, prompt and reply together. None: what the run's settings can come to."""
    extra: tuple[Annotated[str, BeforeValidator(_as_text), AfterValidator(_argument)], ...] = ()
    """Further arguments of the server's command line, such as `[--max-num-seqs, 32]`."""
    compare: int = Field(default=0, ge=0, le=1000)
    """Questions that are also put to the same model in this process, greedily, before the server is asked; the answers
    that differ are told. The model has to fit into the memory here. 0: none."""
    start_timeout: float = Field(default=1800.0, gt=0)
    """Seconds until a server that does not answer is given up; large models take many minutes."""
    max_restarts: int = Field(default=3, ge=0, le=1000)
    """How often a server that ended by itself is started again."""


@dataclass(frozen=True)
class Hosting:
    """What a run gives to a server that it starts."""

    engine: EngineSettings
    logs: Path
    """Folder of the server's log."""
    tell: Callable[[str], None]
    """Tells a line to whoever watches the run."""
    reply_tokens: int
    """Most tokens of a reply that the run asks for, thoughts included."""
