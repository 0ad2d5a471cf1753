"""LLaVA's conversations, for its `--data_path`; also the ShareGPT format of many other trainers.

`data.json` is a list of rows such as

    {"id": "9f…", "image": "/photos/1.jpg",
     "conversations": [{"from": "human", "value": "<image>\\nWhat is sold?"}, {"from": "gpt", "value": "tea"}],
     "task": "textvqa", "verdict": "teacher_only", ...}

Shape: LLaVA, docs/Finetune_Custom_Data.md. Image paths are full ones, so `--image_folder` may be anything.
"""

from pathlib import Path
from typing import Any

from parityalign.core import Exportable, ExportedPair, ExportFormat
from parityalign.export.formats._rows import IMAGE_MARK, verdict_columns, write_list


def write(run: Exportable, out: Path) -> dict[str, int]:
    """Writes `data.json`."""
    return {"rows": write_list(out / "data.json", map(_row, run.judged()))}


EXPORT = ExportFormat(write, of=("pairs", "verdicts"))


def _row(judged: ExportedPair) -> dict[str, Any]:
    return {
        "id": judged.pair.pair_id,
        "image": judged.pair.image,
        "conversations": [
            {"from": "human", "value": f"{IMAGE_MARK}{judged.asked}"},
            {"from": "gpt", "value": judged.pair.answer},
        ],
        **verdict_columns(judged),
    }
