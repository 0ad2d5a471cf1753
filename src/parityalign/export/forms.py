"""A format by its name, and which options do something in it."""

from collections.abc import Mapping
from types import MappingProxyType

from parityalign.core import ExportFormat, UserError, did_you_mean, has_part, part_names

EXPORTS = "exports"
_READS: Mapping[str, str] = MappingProxyType(
    {
        "sharegpt": "llava",
        "llavanext": "llava",
        "llamafactory": "messages",
        "msswift": "messages",
        "swift": "messages",
        "openai": "messages",
        "chatml": "messages",
        "sfttrainer": "trl",
        "datasets": "hf-dataset",
        "huggingface": "hf-dataset",
        "parquet": "hf-dataset",
        "lmmseval": "lmms-eval",
        "vlmevalkit": "evaluation-log",
    }
)
"""What tools and forms of other names read, without hyphens."""


def part_of(form: str) -> str:
    """The name of a format's module.

    Raises:
        UserError: There is no such format.
    """
    part = form.replace("-", "_")
    if not has_part(EXPORTS, part):
        raise UserError(_unknown(form))
    return part


def _unknown(form: str) -> str:
    """The message for a format that there is not, with the one that a tool of this name reads."""
    known = [name.replace("_", "-") for name in part_names(EXPORTS)]
    read = _READS.get(form.lower().replace("-", "").replace("_", ""))
    near = f"Did you mean {read}? Known: {', '.join(known)}." if read else did_you_mean(form, known)
    return f"there is no export format {form!r}. {near}"


def refuse_idle_options(form: str, found: ExportFormat, *, everything: bool, prompted: bool, in_place: bool) -> None:
    """Refuses options that change nothing in a format.

    Args:
        form: Its name, as it was given.
        found: The format.
        everything: All pairs, not only the gaps.
        prompted: Questions inside the task's answer prompt.
        in_place: Pictures are named by their full paths and not copied.

    Raises:
        UserError: One of these changes nothing.
    """
    if in_place and not found.copies_pictures:
        raise UserError(f"--in-place leaves pictures uncopied, and {form} copies none beside its rows; leave it out")
    if (everything or prompted) and "verdicts" not in found.of:
        option = "--what all" if everything else "--prompted"
        raise UserError(f"{option} is about a run's pairs, and {form} holds none of them; leave it out")
