"""Settings of how models are loaded; `schema.py` joins them with the others."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from parityalign.config.base import Auto, Settings, SpeedOnly

_CHANGES_ANSWERS = {"dtype", "quantise", "max_pixels", "remote_code", "chat_template_kwargs", "thinking_tokens"}
_OURS = ("messages", "add_generation_prompt", "bos_token", "eos_token")
"""Variables of chat templates that belong to every chat."""


def _variable(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise ValueError(f"is {name!r}, which is no name of a variable (letters, digits, underscores)")
    if name in _OURS:
        raise ValueError(f"is {name!r}, which is set for every chat and cannot be given")
    return name


class LoadingSettings(Settings):
    """How a model that runs in this process is loaded."""

    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit on the hub. None: the newest when the run begins."""
    commit: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")
    """The commit of `revision` when the run began; written into the run's own `run.yaml` and used from then on."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on a GPU that multiplies it in hardware, else float32."""
    device_map: Literal["auto"] | None = None
    """`auto` spreads a model over all GPUs and, if they are full, CPU memory. None: one GPU if there is one, else the
    CPU."""
    replicas: Annotated[Auto[Annotated[int, Field(ge=1, le=1024)]], SpeedOnly] = None
    """Processes that each hold the model and share its questions. `auto`: one for each GPU if there are several, else
    none besides this one."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """`auto`: what transformers chooses for the family, `sdpa` for nearly all."""
    quantise: Literal["4bit", "8bit"] | None = None
    """Quantise the weights for inference (needs bitsandbytes). None: as stored."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Most pixels of an image; larger images are scaled down. None: of a family that takes images of nearly any size a
    megapixel, written into the run's own `run.yaml` when it begins; of others the processor's own limit."""
    workers: Annotated[int | None, SpeedOnly] = Field(default=None, ge=0, le=64)
    """Threads that prepare pictures while the model works, on a GPU processes, for each replica; 0: none does. None: as
    many as this machine is good for."""
    max_pixels_by_default: Annotated[bool, SpeedOnly] = False
    """Whether `max_pixels` is what is usual for the family; written into the run's own `run.yaml` when it begins."""
    remote_code: bool = False
    """Whether Python code in the model's folder may be run."""
    chat_template_kwargs: dict[
        Annotated[str, AfterValidator(_variable)], StrictBool | StrictInt | StrictFloat | StrictStr
    ] = Field(default={})
    """Variables of the model's chat template. `enable_thinking` is false in a template that has it, unless it is given
    here."""
    thinking_tokens: int = Field(default=0, ge=0)
    """Tokens that the model may think before each answer, added to `max_new_tokens`; for served models too."""

    @model_validator(mode="after")
    def _gpus_are_for_one(self) -> Self:
        if self.device_map and (self.replicas or 1) > 1:
            raise ValueError(
                f"replicas is {self.replicas} and device_map is {self.device_map}, which spreads one copy of the model "
                "over all GPUs. Leave one of them out: replicas for a model that one GPU holds, device_map for others"
            )
        return self

    def __hash__(self) -> int:
        """By its values, some of which have no hash."""
        return hash(self.model_dump_json())

    @property
    def processes(self) -> int | None:
        """How many hold the model; None: one for each GPU if there are several, else this one alone."""
        return 1 if self.device_map else self.replicas

    @property
    def pinned(self) -> str | None:
        """The commit, where it is known, else the branch or tag."""
        return self.commit or self.revision

    def for_own_folder(self) -> "LoadingSettings":
        """The same for a student that this run has saved: its folder has no revision.

        Whether code beside the weights may run was decided for the student before.
        """
        return self.model_copy(update={"revision": None, "commit": None})

    def numbers(self) -> dict[str, object]:
        """The settings that change a model's answers, if they differ from the defaults."""
        return self.model_dump(include=_CHANGES_ANSWERS, exclude_defaults=True)


class Loadings(Settings):
    """How the models are loaded."""

    teacher: LoadingSettings = LoadingSettings()
    student: LoadingSettings = LoadingSettings()
    """Before and after levelling alike."""
    second_teacher: LoadingSettings = LoadingSettings()
    """Of `verify.second_teacher`."""
    prepared_gigabytes: Annotated[float, SpeedOnly] = Field(default=20.0, ge=0)
    """Most space for prepared pictures in the run folder, which all stages read instead of preparing them again; at
    most half of what the disk has left. 0: none are kept."""
