"""Specs of models: KIND:LOCATION, a bundled model, or the address of a server."""

from pathlib import Path
from urllib.parse import urlsplit

from parityalign.core import EMBEDDED_MODELS, UserError, did_you_mean, has_part, part_names

_SERVED = "openai"
"""The kind of model that is named by a URL, `https` too."""


def is_address(spec: str) -> bool:
    """Whether a model is named by a URL, which is not split like other specs."""
    return spec.startswith(("http://", "https://"))


def _check_address(spec: str) -> None:
    try:
        address = urlsplit(spec)
        found = bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is not a number, half an IPv6 address
        found = False
    if not found:
        raise UserError("a model's address names no server: write it like http://HOST:PORT/v1#NAME.")
    # Not shown, since it is likely to be a secret; and the address is written into files.
    if address.username or address.password or address.query:
        raise UserError(
            f"the address of a model at {address.hostname} holds a user name, password or query. Give the address "
            "alone; the key comes from an environment variable (server.key_variable)."
        )


def split_model(spec: str) -> tuple[str, str]:
    """A model's (kind, location), with `embedded:NAME` resolved to `hf` on the bundled folder; a URL is `openai`.

    Raises:
        UserError: It is not KIND:LOCATION, the kind is unknown, or there is no such embedded model.
    """
    kind, _, location = spec.partition(":")
    if is_address(spec) or kind == _SERVED:
        _check_address(spec)
        return _SERVED, spec
    if not location:
        raise UserError(
            f"{spec!r} does not say where the model is: write KIND:LOCATION, "
            f"such as embedded:teacher or hf:./folder, or a server's address. Kinds: {', '.join(_kinds())}."
        )
    if kind != "embedded":
        if not has_part("backends", kind):
            raise UserError(f"there is no kind of model {kind!r} (in {spec!r}). {did_you_mean(kind, _kinds())}")
        return kind, location
    bundled = sorted(path.name for path in EMBEDDED_MODELS.glob("*") if path.is_dir())
    if location not in bundled:
        raise UserError(f"there is no embedded model {location!r}. {did_you_mean(location, bundled)}")
    return "hf", str(EMBEDDED_MODELS / location)


def is_bundled(spec: str) -> bool:
    """Whether a spec names one of the bundled models, which know the prompts of their schooling and no others.

    Raises:
        UserError: There is no such model.
    """
    kind, location = split_model(spec)
    return kind == "hf" and Path(location).parent == EMBEDDED_MODELS


def _kinds() -> list[str]:
    return sorted([*part_names("backends"), "embedded"])


def is_path(location: str) -> bool:
    """Whether a location is the path of a folder, existing or not; else it is taken for a name on the hub."""
    return location.startswith((".", "/", "~")) or location.count("/") > 1 or Path(location).expanduser().exists()
