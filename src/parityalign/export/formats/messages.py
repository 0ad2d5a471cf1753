"""`messages` and `images` as JSON lines: ms-swift reads the file directly, LLaMA-Factory through its entry.

`data.jsonl` has lines such as

    {"id": "9f…",
     "messages": [{"role": "user", "content": "<image>\\nWhat is sold?"}, {"role": "assistant", "content": "tea"}],
     "images": ["images/0d2e….jpg"], "task": "textvqa", "verdict": "teacher_only", ...}

and `dataset_info.json` the entry that LLaMA-Factory looks for in its `dataset_dir`.
Shapes: ms-swift, docs/source_en/Customization/Custom-dataset.md; LLaMA-Factory, data/README.md, where OpenAI's
format is `sharegpt` with other tags.
"""

import json
from pathlib import Path

from parityalign.core import Exportable, ExportedPair, ExportFormat, write_whole
from parityalign.export.formats._rows import IMAGE_MARK, Row, rows_of, verdict_columns, write_lines

_DATA = "data.jsonl"


def write(run: Exportable, out: Path) -> dict[str, int]:
    """Writes `data.jsonl` and `dataset_info.json`."""
    count = write_lines(out / _DATA, rows_of(run, out, _row))
    entry = {
        "file_name": _DATA,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    }
    info = {f"parityalign_{run.origin().exported}": entry}
    write_whole(out / "dataset_info.json", json.dumps(info, indent=2) + "\n")
    return {"rows": count}


EXPORT = ExportFormat(write, of=("pairs", "verdicts"))


def _row(judged: ExportedPair, picture: str) -> Row:
    return {
        "id": judged.pair.pair_id,
        "messages": [
            {"role": "user", "content": f"{IMAGE_MARK}{judged.asked}"},
            {"role": "assistant", "content": judged.pair.answer},
        ],
        "images": [picture],
        **verdict_columns(judged),
    }
