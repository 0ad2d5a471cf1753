"""Beside pyproject.toml: makes the README the text of an index page, which has no files beside it."""

import re
from pathlib import Path

from setuptools import setup

_TO_A_FILE = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)([^)]+)\)")


def without_files(text: str) -> str:
    """The text with the names of the project's files in place of links to them."""
    return _TO_A_FILE.sub(lambda link: f"`{link[2]}`" if link[1] == link[2] else f"{link[1]} (`{link[2]}`)", text)


setup(
    long_description=without_files((Path(__file__).parent / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
