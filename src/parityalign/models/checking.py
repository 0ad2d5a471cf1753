"""Checks a model before anything is paid for its work: opened, tried out on one question, its weights counted.

A model's folder is foreign: its files may be damaged or hostile, and its chat template is a program. What is opened is
bounded in size, and what runs is bounded in time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image
from transformers import AutoModelForImageTextToText, PreTrainedConfig

from parityalign.config import LoadingSettings
from parityalign.core import TookTooLongError, UserError, in_time
from parityalign.models.chat_templates import PROBE, TASK_TEMPLATES, opened_thought
from parityalign.models.checkpoint import model_folder, refuse_damaged, weight_files
from parityalign.models.cutting import on_device
from parityalign.models.device import refuse_machine
from parityalign.models.encoding import Prompter
from parityalign.models.loading import AS_IT_IS, in_words, open_config, open_processor, refuse_missing
from parityalign.models.parts import image_token

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds for opening a processor, and for one question; both take a fraction of a second."""
_QUESTION, _ANSWER = PROBE, "42"
_SIDE = 64


def check_model(location: str, loading: LoadingSettings = AS_IT_IS) -> None:
    """Refuses a model that cannot work, as far as can be checked without reading its weights.

    Args:
        location: Hugging Face folder or hub id.
        loading: How it would be loaded.

    Raises:
        UserError: It is missing or damaged, lacks weights, is not a vision-language model, its chat template is
            missing, leaves out the question or the picture or begins a thought, or this machine lacks something.
    """
    refuse_machine(loading)
    config = _tried(lambda: open_config(location, loading), f"the configuration of {location}")
    folder = model_folder(location, loading, weights=False)
    refuse_damaged(location, folder)
    _tried(lambda: _try_out(location, loading, config), f"a question to {location}")
    _count_weights(location, folder, config, loading)


def _tried(work: Callable[[], T], what: str) -> T:
    try:
        return in_time(work, PATIENCE, computes=True)
    except TookTooLongError as problem:
        raise UserError(
            f"{what} took more than {PATIENCE:.0f} seconds, so its files are damaged or hostile (a chat template is a "
            "program). Nothing was done.\nCopy or download it again."
        ) from problem


def refuse_teacher(location: str, loading: LoadingSettings = AS_IT_IS) -> None:
    """Refuses a teacher that cannot write questions.

    Raises:
        UserError: Its family knows some tasks only.
    """
    template: Any = open_processor(location, loading)
    if any(known in template.chat_template for known in TASK_TEMPLATES.values()):
        raise UserError(
            f"{location} cannot be the teacher: models of its family answer questions and follow no other "
            "instructions, so it writes none.\nTake a teacher that was tuned for chat (often called -it, -Instruct or "
            "-chat); as the student it is welcome."
        )


def _try_out(location: str, loading: LoadingSettings, config: PreTrainedConfig) -> None:
    """Writes a question about a picture, and one with its answer, as for the model."""
    prompter = Prompter(open_processor(location, loading), location)
    for text in (prompter.chat(_QUESTION), prompter.chat(_QUESTION, _ANSWER)):
        if _QUESTION not in text:
            raise UserError(
                f"the chat template of {location} leaves out the question: of {_QUESTION!r} it makes {text[:200]!r}.\n"
                "Use the template of a vision-language model, whose contents are lists of parts."
            )
    if not loading.thinking_tokens:
        _refuse_thoughts(location, prompter)
    with in_words(location, "the processor of"):
        encoded = prompter.encode(Image.new("RGB", (_SIDE, _SIDE), "white"), _QUESTION)
    levels = [] if encoded.levels is None else [encoded.levels.numpy()]
    if not all(on_device(array).isfinite().all() for array in (*encoded.image.values(), *levels)):
        raise UserError(
            f"the processor of {location} makes numbers of a picture that are not finite (NaN or infinite); its "
            "image_mean, image_std or rescale_factor are damaged.\nCopy or download it again."
        )
    placeholder = image_token(config)
    if placeholder is not None and placeholder not in encoded.tokens:
        raise UserError(
            f"the chat template of {location} leaves out the picture: no token of the prompt is its placeholder "
            f"({placeholder}).\nUse the template of a vision-language model, which writes one for each picture."
        )


def _refuse_thoughts(location: str, prompter: Prompter) -> None:
    if mark := opened_thought(prompter):
        raise UserError(
            f"the chat template of {location} begins every reply with a thought ({mark}). If it has a switch for that, "
            "use it: loading.ROLE.chat_template_kwargs.\nElse give the teacher room to think, in tokens: "
            "loading.teacher.thinking_tokens: 2048. A student has to answer at once: take its variant that does (often "
            "called -Instruct)."
        )


def _count_weights(location: str, folder: Path, config: PreTrainedConfig, loading: LoadingSettings) -> None:
    """Refuses weights that lack some of the model's, by names and shapes; those that are not here are skipped."""
    here = all((folder / name).is_file() for name in weight_files(folder))
    if not here or getattr(config, "quantization_config", None):  # quantised ones have other names and shapes
        return
    opened: Any = AutoModelForImageTextToText.from_pretrained
    with in_words(location, "a vision-language model from", folder):
        _, found = opened(
            folder,
            config=config,
            use_safetensors=True,
            trust_remote_code=loading.remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below
            device_map={"": "meta"},  # nothing is read but the names and shapes
        )
    refuse_missing(location, found)
