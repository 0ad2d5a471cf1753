"""A model behind an SGLang that the run starts: `sglang:OWNER/NAME` or `sglang:./folder`, asked and never trained."""

from parityalign.config import Backend
from parityalign.models.backends.hf import fingerprint
from parityalign.models.servers.program import ServerProgram, Start, Trouble, engine_options

_TROUBLES = (
    Trouble(
        r"(?i)out of memory|OutOfMemoryError|Not enough memory",
        "Lower engine.max_length or loading.ROLE.max_pixels, change engine.gpu_memory_utilization, or spread the model "
        "over more GPUs (engine.tensor_parallel); another program may use this GPU.",
        of_gpu_memory=True,
    ),
    Trouble(
        r"are not supported for now|does not recognize this architecture|Unsupported architectures",
        "This SGLang does not know the model: update it, take another model, or run it in this process (hf: in place "
        "of sglang:), which is slower.",
    ),
    Trouble(
        r"unrecognized arguments|invalid choice|expected one argument",
        "This SGLang does not take these options: update it, or correct engine.extra.",
    ),
    Trouble(r"No CUDA GPUs are available|Found no NVIDIA driver", "It finds no GPU: see nvidia-smi."),
)


def _arguments(start: Start) -> list[str]:
    options = engine_options(
        start,
        length="--context-length",
        memory="--mem-fraction-static",
        tensor="--tp-size",
        data="--dp-size",
    )
    return [
        *("serve", "--model-path", str(start.folder), "--served-model-name", start.name),
        *("--host", "127.0.0.1", "--port", str(start.port), "--log-level-http", "warning"),
        # Temperatures that lie beside a model are not used for models in this process either.
        *("--dtype", start.loading.dtype, "--sampling-defaults", "openai"),
        *options,
    ]


PROGRAM = ServerProgram(
    "sglang",
    _arguments,
    install="python -m venv ~/sglang && ~/sglang/bin/pip install sglang",
    troubles=_TROUBLES,
    changes_answers=frozenset(
        "--quantization --torchao-config --kv-cache-dtype --chat-template --sampling-defaults --reasoning-parser "
        "--lora-paths --json-model-override-args --tokenizer-path --dtype --load-format --model-impl".split()
    ),
)
BACKEND = Backend(serve=PROGRAM, hub=True, fingerprint=fingerprint, max_concurrency=64)
