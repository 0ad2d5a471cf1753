"""A format for other tools: `flashcards.tsv`, as programs that quiz people read it: question, answer, picture."""

import csv
from pathlib import Path

from parityalign.core import Exportable, ExportFormat


def write(run: Exportable, folder: Path) -> dict[str, int]:
    """Writes the file and counts its lines."""
    with (folder / "flashcards.tsv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, delimiter="\t")
        rows = [(judged.asked, judged.pair.answer, judged.pair.image) for judged in run.judged()]
        lines.writerows(rows)
    return {"cards": len(rows)}


EXPORT = ExportFormat(write, of=("pairs", "verdicts"))
