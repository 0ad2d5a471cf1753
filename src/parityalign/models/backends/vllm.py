"""A model behind a vLLM that the run starts: `vllm:OWNER/NAME` or `vllm:./folder`, asked and never trained.

vLLM pins other versions of torch and transformers than this package works with, so it lies in an environment of its
own, of which nothing is known but the program.
"""

from parityalign.config import Backend
from parityalign.models.backends.hf import fingerprint
from parityalign.models.servers.program import ServerProgram, Start, Trouble, engine_options

_MEMORY = (
    "Lower engine.gpu_memory_utilization, loading.ROLE.max_pixels or engine.max_length; spread the model over more "
    "GPUs (engine.tensor_parallel); or name weights that are quantised (AWQ, FP8)."
)
_TROUBLES = (
    Trouble(
        r"is less than desired GPU memory utilization",
        "Something else uses this GPU, such as another run: wait for it, choose another GPU (CUDA_VISIBLE_DEVICES), or "
        "lower engine.gpu_memory_utilization.",
        of_gpu_memory=True,
    ),
    Trouble(
        r"Error in memory profiling",
        "What other processes hold of this GPU changed while vLLM measured it: run the same command.",
        of_gpu_memory=True,
    ),
    Trouble(
        r"(?i)out of memory|OutOfMemoryError|No available memory for the cache blocks", _MEMORY, of_gpu_memory=True
    ),
    Trouble(
        r"max seq len|maximum model length is|KV cache is needed",
        "There is no room for the longest question: lower engine.max_length or loading.ROLE.max_pixels, or raise "
        "engine.gpu_memory_utilization.",
    ),
    Trouble(
        r"is greater than the derived max_model_len",
        "The model takes fewer tokens than engine.max_length: lower it, or leave it out.",
    ),
    Trouble(
        r"are not supported for now|does not recognize this architecture|no vLLM implementation"
        r"|Cannot find model module|is not a multimodal model",
        "This vLLM does not know the model: update it, take another model, or run it in this process (hf: in place of "
        "vllm:), which is slower.",
    ),
    Trouble(
        r"unrecognized arguments|invalid choice|expected one argument",
        "This vLLM does not take these options: update it, or correct engine.extra.",
    ),
    Trouble(
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver",
        "It finds no GPU that it was built for: see nvidia-smi and CUDA_VISIBLE_DEVICES; on a CPU it has to be vLLM's "
        "CPU build.",
    ),
    Trouble(
        r"contains custom code|pass the argument .?trust_remote_code",
        "If you trust the code beside the model: loading.ROLE.remote_code.",
    ),
    Trouble(
        r"ModuleNotFoundError|ImportError|undefined symbol|Could not load this library",
        "Its environment is broken: install vLLM into a new one.",
    ),
    Trouble(r"No space left on device", "Free some space on the disk; /dev/shm may be too small as well."),
)


def _arguments(start: Start) -> list[str]:
    options = engine_options(
        start,
        length="--max-model-len",
        memory="--gpu-memory-utilization",
        tensor="--tensor-parallel-size",
        data="--data-parallel-size",
    )
    return [
        *("serve", str(start.folder), "--served-model-name", start.name),
        *("--host", "127.0.0.1", "--port", str(start.port)),
        *("--dtype", start.loading.dtype, "--limit-mm-per-prompt", '{"image": 1, "video": 0}'),
        # Penalties and temperatures that lie beside a model are not used for models in this process either.
        *("--generation-config", "vllm", "--uvicorn-log-level", "warning"),
        *options,
    ]


PROGRAM = ServerProgram(
    "vllm",
    _arguments,
    install="python -m venv ~/vllm && ~/vllm/bin/pip install vllm",
    troubles=_TROUBLES,
    changes_answers=frozenset(
        "--quantization -q --quantization-config --kv-cache-dtype --chat-template --default-chat-template-kwargs "
        "--chat-template-content-format --generation-config --override-generation-config --mm-processor-kwargs "
        "--hf-overrides --lora-modules --default-mm-loras --reasoning-parser --tokenizer --dtype --config-format "
        "--load-format --model-impl --rope-scaling --logits-processors".split()
    ),
    environment={"VLLM_NO_USAGE_STATS": "1"},
)
BACKEND = Backend(serve=PROGRAM, hub=True, fingerprint=fingerprint, max_concurrency=64)
