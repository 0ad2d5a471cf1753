"""A filtered and sorted list of the pairs on which the two models of a run differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parityalign.config import RunConfig
from parityalign.core import (
    DISCREPANCY_FOLDER,
    PAIR_DISCREPANCIES,
    Measure,
    Pair,
    PairDiscrepancy,
    UserError,
    VerdictKind,
    did_you_mean,
    read_manifest,
)
from parityalign.report.discrepancy import MEASURE_WORDS, Table
from parityalign.report.files import is_current, read_records
from parityalign.report.flow import VERDICT_WORDS
from parityalign.report.tables import ABSENT, counted
from parityalign.stages import most_discrepant_first, reviewed_pairs

LISTED_BY_DEFAULT = 10
"""Default number of pairs."""


class ListOptions(NamedTuple):
    """Which pairs a list holds, and in which order."""

    verdict: VerdictKind
    sort: Measure
    """The measure to sort by, largest first; pairs without it come last."""
    top: int | None
    """None: all."""


def holds_discrepancy(config: RunConfig) -> bool:
    """Whether a run's models have been compared with its configuration, on its current pairs and verdicts.

    Only manifests are read, so that the list works on machines without the models.
    """
    folder = config.run / DISCREPANCY_FOLDER
    manifest = read_manifest(folder) if is_current(config.run, DISCREPANCY_FOLDER) else None
    if manifest is None or not (folder / PAIR_DISCREPANCIES).is_file():
        return False
    made, wanted = manifest["settings"], config.discrepancy
    same = made.get("discrepancy.max_new_tokens") == wanted.max_new_tokens
    return same and (made.get("discrepancy.rationales", False) or not config.wants_rationales)


def read_pair_discrepancies(run: Path) -> list[PairDiscrepancy]:
    """How the two models of a run differ on each pair."""
    return list(read_records(run / DISCREPANCY_FOLDER / PAIR_DISCREPANCIES, PairDiscrepancy))


def of_one_task(pairs: Sequence[PairDiscrepancy], task: str | None) -> list[PairDiscrepancy]:
    """The pairs of one task, or of all tasks if it is None.

    Raises:
        UserError: There is no pair of the task.
    """
    tasks = sorted({pair.task for pair in pairs})
    if task is not None and task not in tasks:
        raise UserError(f"the models were compared on no pair of the task {task!r}. {did_you_mean(task, tasks)}")
    return [pair for pair in pairs if task in (None, pair.task)]


def listed_pairs(pairs: Sequence[PairDiscrepancy], wanted: ListOptions) -> list[PairDiscrepancy]:
    """The selected pairs, the most discrepant first."""
    chosen = [pair for pair in pairs if pair.verdict == wanted.verdict]
    return most_discrepant_first(chosen, wanted.sort)[: wanted.top]


def listed_rows(run: Path, chosen: Sequence[PairDiscrepancy], weights: Mapping[str, float]) -> list[dict[str, object]]:
    """Each pair with its discrepancies and its weight, in one flat row."""
    pairs = _pairs(run, chosen)
    return [
        {**pairs[each.pair_id].model_dump(), **each.model_dump(mode="json"), "weight": weights[each.pair_id]}
        for each in chosen
    ]


def list_table(run: Path, chosen: Sequence[PairDiscrepancy], wanted: ListOptions) -> Table:
    """The list as text."""
    pairs = _pairs(run, chosen)
    what = f"{VERDICT_WORDS[wanted.verdict]}, ordered by {MEASURE_WORDS[wanted.sort]}"
    caption = f"Where the models differ most: the first {counted(len(chosen), 'pair')} of: {what}."
    lines = [
        (each.task, pairs[each.pair_id].question, pairs[each.pair_id].answer, each.pair_id, *_numbers(each))
        for each in chosen
    ]
    return Table(caption, ("task", "question", "answer", "pair", *MEASURE_WORDS.values()), lines, words=4)


def _pairs(run: Path, chosen: Sequence[PairDiscrepancy]) -> dict[str, Pair]:
    wanted = {each.pair_id for each in chosen}
    found = {pair.pair_id: pair for pair in reviewed_pairs(run) if pair.pair_id in wanted}
    if lost := wanted - found.keys():
        raise UserError(
            f"{run / 'pairs'} does not hold {len(lost):,} of the pairs in {run / DISCREPANCY_FOLDER}, such as "
            f"{min(lost)}.\nRestore the file from a copy, or make it again: parityalign annotate {run}"
        )
    return found


def _numbers(pair: PairDiscrepancy) -> list[str]:
    values = (getattr(pair, measure) for measure in Measure)
    return [ABSENT if value is None else f"{value:.3f}" for value in values]
