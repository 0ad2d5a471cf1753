"""Settings of how models are loaded; `schema.py` joins them with the others."""

from typing import Literal

from pydantic import Field

from parityalign.config.base import Settings


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
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """`auto`: what transformers chooses for the family, `sdpa` for nearly all."""
    quantise: Literal["4bit", "8bit"] | None = None
    """Quantise the weights for inference (needs bitsandbytes). None: as stored."""
    max_pixels: int | None = Field(default=None, ge=1)
    """Most pixels of an image; larger images are scaled down. None: the processor's own limit."""
    remote_code: bool = False
    """Whether Python code in the model's folder may be run."""

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
        return self.model_dump(include={"dtype", "quantise", "max_pixels", "remote_code"}, exclude_defaults=True)


class Loadings(Settings):
    """How the two models are loaded."""

    teacher: LoadingSettings = LoadingSettings()
    student: LoadingSettings = LoadingSettings()
    """Before and after levelling alike."""
