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
ConfigArgument = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The configuration of the run.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SETTING=VALUE", help="Use another value than the file's, such as level.epochs=3."),
]
DetailsOption = Annotated[bool, typer.Option("--details", help="Show all tables and counts, too.")]
