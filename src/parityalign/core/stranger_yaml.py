"""YAML that somebody else wrote: a model's card, a data set's word about itself."""

from typing import Any

import yaml

_MOST_BRACKETS = 200
"""The time to read nested ones grows with their square."""


def yaml_mapping(text: str) -> dict[str, Any]:
    """The mapping in a text; empty if there is none, or one that no person writes.

    Aliases stay references: a short text may hold a value that is huge once it is written out.
    """
    if text.count("[") + text.count("{") > _MOST_BRACKETS:
        return {}
    try:
        said = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that there is not
        return {}
    return said if isinstance(said, dict) else {}
