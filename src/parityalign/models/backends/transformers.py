"""A model behind `transformers serve` that the run starts: `transformers:OWNER/NAME` or `transformers:./folder`.

It is slower than the same model in this process (`hf:`), and there for what only a server shows: that a run is the same
with a teacher elsewhere. It may lie in this program's own environment.
"""

from parityalign.config import Backend
from parityalign.models.backends.hf import fingerprint
from parityalign.models.servers.program import ServerProgram, Start, Trouble


def _arguments(start: Start) -> list[str]:
    said = [
        "serve",
        str(start.folder),
        "--host",
        "127.0.0.1",
        "--port",
        str(start.port),
        "--dtype",
        start.loading.dtype,
    ]
    return [*said, "--trust-remote-code"] if start.loading.remote_code else said


PROGRAM = ServerProgram(
    "transformers",
    _arguments,
    install="pip install 'parityalign[serving]'",
    troubles=(
        Trouble(
            r"[Mm]issing dependencies|No module named '(?:fastapi|uvicorn|openai)'",
            "pip install 'parityalign[serving]'",
        ),
        Trouble(
            r"(?i)out of memory|OutOfMemoryError",
            "Lower loading.ROLE.max_pixels, or take a smaller model.",
            of_gpu_memory=True,
        ),
    ),
    renames=False,
    takes=frozenset(),
    changes_answers=frozenset("--quantization --reasoning --chat-template-kwargs --dtype".split()),
    beside_us=True,
)
BACKEND = Backend(serve=PROGRAM, hub=True, fingerprint=fingerprint)
