"""Options that commands share, and what may be given for them; no command has them alone."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Rule(StrEnum):
    """When an answer counts as right; see `config.IdentifySettings`."""

    METRIC = "metric"
    PAPER = "paper"


class What(StrEnum):
    """Which pairs an export holds."""

    GAPS = "gaps"
    ALL = "all"


PushOption = Annotated[
    str | None, typer.Option("--push", metavar="OWNER/NAME", help="Then upload the levelled student to the hub.")
]
PublicOption = Annotated[bool, typer.Option("--public", help="Let everybody see what --push uploads.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was begun.")]
