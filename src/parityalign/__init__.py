"""Bring a small vision-language model to parity with a large one on your own images, without labels.

    import parityalign as pa

    run = pa.open_run("RUN.yaml")
    run.upto("identify")
    run.gaps, run.to_pandas("gaps")

docs/python.md has the rest.
"""

import lazy_loader

TYPE_CHECKING = False  # type checkers take it for true; importing `typing` for it would take longer than all else here
if TYPE_CHECKING:
    from parityalign import cli as cli
    from parityalign import metrics as metrics
    from parityalign.core import Judged as Judged
    from parityalign.core import Pair as Pair
    from parityalign.core import Scores as Scores
    from parityalign.core import UserError as UserError
    from parityalign.core import Verdict as Verdict
    from parityalign.core import VerdictKind as VerdictKind
    from parityalign.pipeline import OpenRun as OpenRun
    from parityalign.pipeline import identify as identify
    from parityalign.pipeline import open_run as open_run

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    ["cli", "metrics"],
    {
        "core": ["Judged", "Pair", "Scores", "UserError", "Verdict", "VerdictKind"],
        "pipeline": ["OpenRun", "identify", "open_run"],
    },
)
