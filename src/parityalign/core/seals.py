"""JSON objects that hold a digest of themselves, so that one that was damaged is not taken at its word."""

import json
from collections.abc import Mapping
from typing import Any

from parityalign.core.records import content_id

SEAL = "seal"
"""The digest's key. An object without one, as of earlier versions, is taken as it is."""


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """An object of JSON values with its digest."""
    bare = {key: value for key, value in content.items() if key != SEAL}
    return {**bare, SEAL: _digest(bare)}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """An object as it was before it was sealed.

    Raises:
        ValueError: Its content differs from its digest.
    """
    bare = {key: value for key, value in content.items() if key != SEAL}
    if SEAL in content and content[SEAL] != _digest(bare):
        raise ValueError("its content differs from the digest in it")
    return bare


def _digest(content: Mapping[str, Any]) -> str:
    return content_id(json.dumps(content, sort_keys=True))
