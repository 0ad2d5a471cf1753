"""Specs of models: KIND:LOCATION, a bundled model, or the address of a server."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from parityalign.core import EMBEDDED_MODELS, UserError, did_you_mean, has_part, part_names

_HOST = re.compile(r"[\w.-]+:\d+(/|$)")
"""How a server's address begins that lacks its http://."""
_ON_THE_HUB = re.compile(r"[\w-][\w.-]*/[\w.-]+")
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
            f"{spec!r} does not say where the model is: write KIND:LOCATION, such as embedded:teacher or hf:./folder, "
            f"or a server's address.{_meant(spec)} Kinds: {', '.join(_kinds())}."
        )
    if kind != "embedded":
        if not has_part("backends", kind):
            near = did_you_mean(kind, _kinds())
            raise UserError(f"there is no kind of model {kind!r} (in {spec!r}).{_meant(spec)} {near}")
        return kind, location
    if location not in _bundled():
        raise UserError(f"there is no embedded model {location!r}. {did_you_mean(location, _bundled())}")
    return "hf", str(EMBEDDED_MODELS / location)


def known_model(spec: str) -> str:
    """A model's spec, for a setting; ValueError where there is no such kind of model."""
    try:
        split_model(spec)
    except UserError as problem:
        raise ValueError(str(problem)) from problem
    return spec


def _meant(spec: str) -> str:
    """What is likely to be meant by a model without its kind: a server, a bundled model, a folder, one of the hub."""
    if _HOST.match(spec):
        near = f"http://{spec}"
    elif spec in _bundled():
        near = f"embedded:{spec}"
    elif is_path(spec) or _ON_THE_HUB.fullmatch(spec):
        near = f"hf:{spec}"
    else:
        return ""
    return f" Did you mean {near}?"


def is_bundled(spec: str) -> bool:
    """Whether a spec names one of the bundled models, which know the prompts of their schooling and no others.

    Raises:
        UserError: There is no such model.
    """
    kind, location = split_model(spec)
    return kind == "hf" and Path(location).parent == EMBEDDED_MODELS


def _bundled() -> list[str]:
    return sorted(path.name for path in EMBEDDED_MODELS.glob("*") if path.is_dir())


def _kinds() -> list[str]:
    return sorted([*part_names("backends"), "embedded"])


def is_path(location: str) -> bool:
    """Whether a location is the path of a folder, existing or not; else it is taken for a name on the hub."""
    return location.startswith((".", "/", "~")) or location.count("/") > 1 or Path(location).expanduser().exists()
