"""Opens Hugging Face models and processors, the same way for inference, training and planning."""

import logging as python_logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.utils.tqdm import disable_progress_bars
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from parityalign.config import LoadingSettings
from parityalign.core import UserError, WorkFailed
from parityalign.models.chat_templates import TASK_TEMPLATES, with_defaults
from parityalign.models.checkpoint import MODULES, PICTURE, model_folder, read_object, refuse_absurd, refuse_damaged
from parityalign.models.device import SMALLER, is_out_of_memory, placement, refuse_machine, this_device
from parityalign.models.encoding import Processor
from parityalign.models.gpu_memory import with_who_holds_it
from parityalign.models.max_pixels import limit_pixels, shared_grids
from parityalign.models.processor import read_processor

AS_IT_IS = LoadingSettings()
_CLASS = "AutoModelForImageTextToText"


def open_processor(location: str, loading: LoadingSettings = AS_IT_IS) -> Processor:
    """The processor of a model, with its chat template, for pictures within the limit of pixels.

    Args:
        location: Hugging Face folder or hub id.
        loading: The revision, the limit of pixels and the settings of the chat template.

    Raises:
        UserError: There is no processor or no chat template, or the limit is below the family's minimum.
    """
    quieten()
    folder = model_folder(location, loading, weights=False)
    _refuse_foreign_code(location, folder, loading)
    for name in ("processor_config.json", "preprocessor_config.json"):
        refuse_absurd(folder / name, PICTURE)
    with in_words(location, "the processor of"):
        processor: Any = read_processor(folder, remote_code=loading.remote_code)
    if getattr(processor, "image_processor", None) is None:
        raise UserError(
            f"the model {location} takes no images: its processor is a {type(processor).__name__}. {_WANTED}"
        )
    if processor.chat_template is None:  # some families store it with the tokenizer
        processor.chat_template = processor.tokenizer.chat_template or TASK_TEMPLATES.get(type(processor).__name__)
    if processor.chat_template is None:
        raise UserError(
            f"the model {location} has no chat template, so no prompt can be written for it.\n"
            "Use a variant that was tuned for chat (often called -it, -Instruct or -chat), or write its template to "
            "chat_template.jinja in a copy of its folder."
        )
    processor.chat_template = with_defaults(processor.chat_template, loading.chat_template_kwargs)
    if loading.max_pixels:
        limit_pixels(processor.image_processor, loading.max_pixels)
    opened: Processor = processor
    return opened


def open_config(location: str, loading: LoadingSettings = AS_IT_IS) -> PreTrainedConfig:
    """The configuration of a vision-language model, consistent with a processor of the same settings.

    Raises:
        UserError: It is missing, or is not of a vision-language model.
    """
    folder = model_folder(location, loading, weights=False)
    _refuse_foreign_code(location, folder, loading)
    with in_words(location, "the configuration of"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=loading.remote_code)
    known = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING or _CLASS in (getattr(config, "auto_map", None) or {})
    if not known:
        named = ", ".join(config.architectures or [type(config).__name__])
        raise UserError(f"{location} is not a vision-language model but a {named} ({config.model_type}). {_WANTED}")
    if loading.max_pixels:
        reader: Any = open_processor(location, loading)
        if grids := shared_grids(reader.image_processor):
            config.image_grid_pinpoints = grids
    return config


def open_model(
    location: str,
    loading: LoadingSettings = AS_IT_IS,
    *,
    weights: Path | None = None,
    dtype: torch.dtype | None = None,
    device: str | None = None,
) -> PreTrainedModel:
    """The model on the machine's best device, in evaluation mode.

    Args:
        location: Hugging Face folder or hub id.
        loading: How it is loaded.
        weights: A folder with other weights of the same architecture, such as a checkpoint.
        dtype: Overrides the precision of `loading`, for training. None: as in `loading`.
        device: Another device than the best one.

    Raises:
        UserError: It is missing, is not a vision-language model with safetensors, or does not fit into memory.
    """
    quieten()
    refuse_machine(loading)
    # It plans anew, for tens of milliseconds, at each length that it has not seen: at every token of a reply.
    torch.backends.cuda.enable_cudnn_sdp(False)
    if device:
        loading = loading.model_copy(update={"device_map": None})
    config = open_config(location, loading)
    folder = weights or model_folder(location, loading, weights=True)
    opened: Any = AutoModelForImageTextToText.from_pretrained
    with in_words(location, "a vision-language model from", folder):
        model, found = opened(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=loading.remote_code,
            output_loading_info=True,
            **placement(loading, dtype),
        )
        refuse_missing(location, found)
        if not hasattr(model, "hf_device_map"):
            model.to(device or this_device())
            _channels_last(model)
    opened_model: PreTrainedModel = model.eval()
    return opened_model


def refuse_missing(location: str, found: Mapping[str, Any]) -> None:
    """Refuses a model whose files lack weights, or hold some of another shape, by what transformers found in them.

    Raises:
        UserError: They do; the message names some.
    """
    if missing := sorted(found["missing_keys"]):
        raise UserError(
            f"the model {location} lacks {len(missing)} weights, such as {', '.join(missing[:3])}.\n{_AGAIN}"
        )
    if other := sorted(found["mismatched_keys"]):
        name, stored, wanted = other[0]
        raise UserError(
            f"the weights of the model {location} do not fit its config.json: {len(other)} have another shape, such as "
            f"{name}, {tuple(stored)} for {tuple(wanted)}.\n{_AGAIN}"
        )


def _channels_last(model: torch.nn.Module) -> None:
    """Stores convolution weights channels-last, with which towers run about 1.4 times as fast on a CPU."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):  # not Conv3d, which cuts Qwen-VL's patches and refuses it
            convolution: Any = module
            convolution.to(memory_format=torch.channels_last)


def described(model: Any, processor: Any) -> dict[str, str]:  # noqa: ANN401 - untyped classes
    """What the outputs of an opened model depend on besides its files, for manifests."""
    return {
        "class": type(model).__name__,
        "parameters": str(model.num_parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": ", ".join(sorted({str(weights.device) for weights in model.parameters()})),
        "attention": str(model.config._attn_implementation),
        "image_processor": type(processor.image_processor).__name__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def quieten() -> None:
    """Keeps transformers' warnings and progress bars off the terminal."""
    chatter: Any = logging
    chatter.set_verbosity_error()
    chatter.disable_progress_bar()
    disable_progress_bars()
    python_logging.getLogger("bitsandbytes").setLevel(python_logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(accelerate|peft|transformers)\b")


_AGAIN = "Copy or download it again."
_LONGEST = 1000
_WANTED = (
    "Use one that transformers opens as an image-text-to-text model (AutoModelForImageTextToText), such as "
    "Qwen/Qwen2-VL-2B-Instruct."
)


def _refuse_foreign_code(location: str, folder: Path, loading: LoadingSettings) -> None:
    """Refuses a family that transformers does not know, or whose own code was not allowed."""
    refuse_absurd(folder / "config.json", MODULES)
    content = read_object(folder / "config.json")
    family, code = content.get("model_type"), content.get("auto_map")
    code = code if isinstance(code, dict) else {}
    if (isinstance(family, str) and family in CONFIG_MAPPING) or (loading.remote_code and _CLASS in code):
        return
    if not code:
        raise UserError(
            f"transformers {transformers.__version__} does not know the family {family!r} of the model {location}.\n"
            "A newer version may: pip install --upgrade transformers"
        )
    if _CLASS not in code:
        raise UserError(
            f"the model {location} comes with code of its own, which offers {', '.join(sorted(code))} but no {_CLASS}. "
            "Look for the same model in transformers' format (often called -hf)."
        )
    raise UserError(
        f"the model {location} needs Python code of its own ({code[_CLASS]}), which is not run by default.\n"
        "If you have read it and trust it: set loading.student.remote_code: true (or loading.teacher.remote_code, "
        "whichever it is)."
    )


@contextmanager
def in_words(location: str, what: str, folder: Path | None = None) -> Iterator[None]:
    """Turns errors of loading into messages for the user.

    Only foreign code may run inside. Of a damaged file it raises whatever it happens to meet, and the errors of
    tokenizers are plain Exceptions.
    """
    try:
        yield
    except UserError:
        raise
    except SafetensorError as problem:
        if folder:
            refuse_damaged(location, folder)  # names the files, unlike the exception
        raise UserError(f"cannot load {what} {location}: damaged: {problem}.\n{_AGAIN}") from problem
    except ImportError as problem:
        _refuse_without_torchvision(location, problem)
        raise UserError(
            f"cannot load {what} {location}: a package is missing: {_first_line(problem)}\n{_install_line(problem)}"
        ) from problem
    except Exception as problem:
        if is_out_of_memory(problem):
            said = _first_line(problem)
            advice = with_who_holds_it(SMALLER, said)
            raise WorkFailed(f"the model {location} does not fit: {said}\n{advice}") from problem
        _refuse_without_torchvision(location, problem)
        raise UserError(f"cannot load {what} {location}: {_said(problem)}") from problem


def _refuse_without_torchvision(location: str, problem: Exception) -> None:
    """Says what is missing where transformers names it in half a page, or not at all."""
    if "torchvision" in str(problem).lower() and find_spec("torchvision") is None:
        raise UserError(
            f"{location} needs torchvision, which is not installed: transformers prepares the pictures of its family "
            "with nothing else.\nInstall the build that belongs to your torch: pip install torchvision"
        ) from problem


def _said(problem: Exception) -> str:
    """An exception in a message: named where its text alone would be a riddle, and never pages long."""
    text = str(problem).strip()[:_LONGEST]
    return text if isinstance(problem, OSError | ValueError) and text else f"{type(problem).__name__}: {text}"


def _first_line(problem: BaseException) -> str:
    return (str(problem) or type(problem).__name__).strip().splitlines()[0]


def _install_line(problem: ImportError) -> str:
    """The command that installs a missing package, from the error's text or the package's name."""
    said = re.search(r"pip install [\w\[\]., -]*\w", str(problem))
    named = f"pip install {problem.name.partition('.')[0]}" if problem.name else "see the line above"
    return f"Install it: {said[0] if said else named}"
