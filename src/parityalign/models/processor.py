"""Opens a model's processor for images only, the same way whether or not torchvision is installed.

`AutoProcessor` also opens a processor's video part, which needs torchvision in Qwen2-VL, Qwen2.5-VL, Qwen3-VL,
SmolVLM, InternVL, LLaVA-OneVision, GLM-4V, Gemma 4, LFM3-VL and MiniCPM-V. Videos are not used here, so that part is
not opened, and neither is one for sounds (Gemma 4); their settings are kept and saved with the others. Images are
resized by Pillow wherever a family's can be: torchvision's resizing gives slightly different pixels, and answers from
one machine are compared with answers from another.
"""

import json
from pathlib import Path
from typing import Any

from transformers import PROCESSOR_MAPPING, AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer, ProcessorMixin

from parityalign.models.internals import BaseVideoProcessor, processor_class_from_name
from parityalign.models.versions import unknown_transformers

BACKEND = "pil"
_VIDEO, _SOUND = "video_processor", "feature_extractor"
_UNUSED = (_VIDEO, _SOUND)
_NAMES_THE_CLASS = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def read_processor(folder: Path, *, remote_code: bool) -> Any:  # noqa: ANN401 - one of a hundred untyped classes
    """The processor in a model's folder; errors are exceptions of transformers."""
    kind = None if remote_code else _kind(folder)
    if kind is None or not {*kind.get_attributes()} <= {"image_processor", "tokenizer", *_UNUSED}:
        auto: Any = AutoProcessor
        return auto.from_pretrained(folder, trust_remote_code=remote_code)
    settings, _ = kind.get_processor_dict(folder)
    unused = {name: settings.pop(name, None) for name in _UNUSED if name in kind.get_attributes()}
    pictures: Any = AutoImageProcessor
    parts = {
        "image_processor": pictures.from_pretrained(folder, backend=BACKEND, trust_remote_code=False),
        "tokenizer": AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        **dict.fromkeys(_UNUSED),
    }
    given = [parts[name] for name in kind.get_attributes()]
    if _VIDEO in unused:
        unused[_VIDEO], _ = BaseVideoProcessor.get_video_processor_dict(folder)
    made = _without(kind, unused) if unused else kind
    try:
        return made.from_args_and_dict(given, settings)
    except (AttributeError, TypeError) as problem:
        raise unknown_transformers(f"builds {kind.__name__} ({problem})") from problem


class _NoVideo:
    """A placeholder for the video part, which some read all the same: SmolVLM to write a chat, MiniCPM-V to begin."""

    fps = num_frames = slice_mode = downsample_mode = None
    model_input_names: tuple[str, ...] = ()


class _WithoutParts(ProcessorMixin):
    """Comes after a class of processors and takes what it hands on, but for parts that are not there."""

    handed_on: tuple[str, ...]
    """The parts of the class before it, in the order in which it hands them on."""

    def __init__(self, *parts: object, **named: object) -> None:
        named |= dict(zip(self.handed_on, parts, strict=False))
        there = {name: part for name, part in named.items() if part is not None or name not in _UNUSED}
        untyped: Any = super()
        untyped.__init__(**there)


def _without(kind: Any, unused: dict[str, Any]) -> Any:  # noqa: ANN401 - a class made of an untyped one
    """The same class of processor, under the same name, without some parts, whose settings it keeps."""

    def get_attributes(_: type[ProcessorMixin]) -> list[str]:
        return [name for name in kind.get_attributes() if name not in unused]

    def to_dict(processor: ProcessorMixin) -> dict[str, Any]:
        return {**kind.to_dict(processor), **{name: said for name, said in unused.items() if said is not None}}

    changed = {
        "handed_on": tuple(kind.get_attributes()),
        "get_attributes": classmethod(get_attributes),
        "to_dict": to_dict,
        _VIDEO: _NoVideo(),
    }
    return type(
        kind.__name__, (kind, _WithoutParts), {**changed, "__module__": kind.__module__, "__doc__": kind.__doc__}
    )


def _kind(folder: Path) -> Any:  # noqa: ANN401 - a class
    """The class named in the folder's files, else the one for the model's configuration; None if there is none."""
    for file in _NAMES_THE_CLASS:
        named = _read(folder / file).get("processor_class")
        if named:
            return processor_class_from_name(named)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return PROCESSOR_MAPPING.get(type(config), None)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}
