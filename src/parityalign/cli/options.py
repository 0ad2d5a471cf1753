"""Options that several commands share, and their values."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Rule(StrEnum):
    """When an answer counts as right; see `config.IdentifySettings`."""

    JUDGE = "judge"
    METRIC = "metric"
    PAPER = "paper"


class What(StrEnum):
    """Which pairs an export holds."""

    GAPS = "gaps"
    ALL = "all"


PushOption = Annotated[
    str | None, typer.Option("--push", metavar="OWNER/NAME", help="Upload the levelled student to the hub at the end.")
]
PublicOption = Annotated[bool, typer.Option("--public", help="Make the repository of --push public.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an existing run.")]
