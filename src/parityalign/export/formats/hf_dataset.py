"""A Hugging Face data set folder: Parquet with the images inside, and a data card with its origin.

    README.md                       the card
    data/train-00000.parquet        id, image, question, answer, task, verdict, reason, the models' texts and scores

`datasets.load_dataset(FOLDER)` loads it; it may be moved or uploaded, since it is self-contained.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from datasets import Features, Image, Value

from parityalign.core import Exportable, ExportedPair, ExportFormat, write_whole, writing
from parityalign.export.formats._card import card
from parityalign.export.formats._rows import Row, verdict_columns
from parityalign.export.pictures import picture_content, picture_name

_SHARD_BYTES = 128 * 2**20
"""Image bytes per file; each file is built in memory."""
_ROW_GROUP = 100
"""Rows per row group; the library's own choice for images. With the page index the hub's viewer reads few of them."""
_TEXTS = ("id", "question", "answer", "task", "image_id", "verdict", "reason", "student_text", "teacher_text")
_NUMBERS = ("student_score", "teacher_score")


def write(run: Exportable, out: Path) -> dict[str, int]:
    """Writes the shards, then the card.

    Raises:
        UserError: An image is another one now.
        WorkFailed: One cannot be read, or the disk refused.
    """
    columns = {"image": Image(), **dict.fromkeys(_TEXTS, Value("string")), **dict.fromkeys(_NUMBERS, Value("float64"))}
    schema = Features(columns).arrow_schema
    rows = 0
    (out / "data").mkdir(exist_ok=True)
    for number, shard in enumerate(_shards(map(_row, run.judged()))):
        path = out / "data" / f"train-{number:05}.parquet"
        with writing(path):
            table = pyarrow.Table.from_pylist(shard, schema=schema)
            pyarrow.parquet.write_table(table, path, row_group_size=_ROW_GROUP, write_page_index=True)
        rows += len(shard)
    write_whole(out / "README.md", card(run.origin(), rows))
    return {"rows": rows}


EXPORT = ExportFormat(write, of=("pairs", "verdicts"), on_hub=True, copies_pictures=False)


def _shards(rows: Iterable[Row]) -> Iterator[list[Row]]:
    shard: list[Row] = []
    held = 0
    for row in rows:
        shard.append(row)
        held += len(row["image"]["bytes"])
        if held >= _SHARD_BYTES:
            yield shard
            shard, held = [], 0
    if shard:
        yield shard


def _row(judged: ExportedPair) -> dict[str, Any]:
    pair = judged.pair
    return {
        "id": pair.pair_id,
        "image": {"bytes": picture_content(pair), "path": Path(picture_name(pair)).name},
        "question": judged.asked,
        "answer": pair.answer,
        "image_id": pair.image_id,
        **verdict_columns(judged),
    }
