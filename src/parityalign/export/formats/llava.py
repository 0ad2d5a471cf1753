"""LLaVA's conversations, for its `--data_path`; also the ShareGPT format of many other trainers.

`data.json` is a list of rows such as

    {"id": "9f…", "image": "images/0d2e….jpg",
     "conversations": [{"from": "human", "value": "<image>\\nWhat is sold?"}, {"from": "gpt", "value": "tea"}],
     "task": "textvqa", "verdict": "teacher_only", ...}

Shape: LLaVA, docs/Finetune_Custom_Data.md. `--image_folder` is the folder of the export.
"""

from pathlib import Path

from parityalign.core import Exportable, ExportedPair, ExportFormat
from parityalign.export.formats._rows import IMAGE_MARK, Row, rows_of, verdict_columns, write_list


def write(run: Exportable, out: Path) -> dict[str, int]:
    """Writes `data.json`."""
    return {"rows": write_list(out / "data.json", rows_of(run, out, _row))}


EXPORT = ExportFormat(write, of=("pairs", "verdicts"))


def _row(judged: ExportedPair, picture: str) -> Row:
    return {
        "id": judged.pair.pair_id,
        "image": picture,
        "conversations": [
            {"from": "human", "value": f"{IMAGE_MARK}{judged.asked}"},
            {"from": "gpt", "value": judged.pair.answer},
        ],
        **verdict_columns(judged),
    }
