"""TRL's conversational prompt and completion, with images: the loss is on the completion only.

`data.jsonl` has lines such as

    {"id": "9f…", "prompt": [{"role": "user", "content": "What is sold?"}],
     "completion": [{"role": "assistant", "content": "tea"}],
     "images": ["images/0d2e….jpg"], "task": "textvqa", "verdict": "teacher_only", ...}

TRL inserts the images before the first user's text itself, so no placeholder is written. It needs images, not
paths: docs/gaps-elsewhere.md has the lines that open them.
Shape: TRL, docs/source/dataset_formats.md (vision datasets).
"""

from pathlib import Path

from parityalign.core import Exportable, ExportedPair, ExportFormat
from parityalign.export.formats._rows import Row, rows_of, verdict_columns, write_lines


def write(run: Exportable, out: Path) -> dict[str, int]:
    """Writes `data.jsonl`."""
    return {"rows": write_lines(out / "data.jsonl", rows_of(run, out, _row))}


EXPORT = ExportFormat(write, of=("pairs", "verdicts"))


def _row(judged: ExportedPair, picture: str) -> Row:
    return {
        "id": judged.pair.pair_id,
        "prompt": [{"role": "user", "content": judged.asked}],
        "completion": [{"role": "assistant", "content": judged.pair.answer}],
        "images": [picture],
        **verdict_columns(judged),
    }
