"""The pairs of a run with their profiles, as a list that is filtered and sorted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from parityalign.core import PROFILES, Measure, Pair, Profile, UserError, VerdictKind, did_you_mean, read_manifest
from parityalign.report.differences import MEASURE_WORDS, Table
from parityalign.report.files import is_current, read_records
from parityalign.report.flow import VERDICT_WORDS
from parityalign.report.tables import ABSENT, counted
from parityalign.stages import most_discrepant_first

LISTED_BY_DEFAULT = 10
"""Pairs that are shown where nobody says how many."""


class ListOptions(NamedTuple):
    """Which pairs a list holds, and in which order."""

    verdict: VerdictKind
    sort: Measure
    """The pairs on which the models differ most by this come first, those without it last."""
    top: int | None
    """None: all."""


def read_profiles(run: Path) -> list[Profile]:
    """The profiles of a run's pairs.

    Raises:
        UserError: There is no evidence, or it is not finished, or of other pairs or verdicts.
    """
    folder, command = run / "evidence", f"parityalign observe {run}"
    if not folder.is_dir():
        raise UserError(
            f"{run} does not hold what the two models show of the pairs.\n"
            f"Write `evidence: {{always: true}}` into {run / 'run.yaml'}, then: {command}"
        )
    if read_manifest(folder) is None or not (folder / PROFILES).is_file():
        raise UserError(f"{folder} is not finished.\nGo on with it: {command}")
    if not is_current(run, "evidence"):
        raise UserError(f"{folder} is of other pairs or verdicts than {run} has now.\nMake it anew: {command}")
    return list(read_records(folder / PROFILES, Profile))


def of_one_task(profiles: Sequence[Profile], task: str | None) -> list[Profile]:
    """The profiles of the pairs of one task, all of them without a task.

    Raises:
        UserError: There is no pair of the task.
    """
    tasks = sorted({profile.task for profile in profiles})
    if task is not None and task not in tasks:
        raise UserError(f"there is evidence of no pair of the task {task!r}. {did_you_mean(task, tasks)}")
    return [profile for profile in profiles if task in (None, profile.task)]


def listed_pairs(profiles: Sequence[Profile], wanted: ListOptions) -> list[Profile]:
    """The profiles of the pairs that are wanted, the most discrepant first."""
    chosen = [profile for profile in profiles if profile.verdict == wanted.verdict]
    return most_discrepant_first(chosen, wanted.sort)[: wanted.top]


def listed_rows(run: Path, chosen: Sequence[Profile], weights: Mapping[str, float]) -> list[dict[str, object]]:
    """Each pair with its profile and its weight, in one flat row."""
    pairs = _pairs(run, chosen)
    return [
        {**pairs[each.pair_id].model_dump(), **each.model_dump(mode="json"), "weight": weights[each.pair_id]}
        for each in chosen
    ]


def list_table(run: Path, chosen: Sequence[Profile], wanted: ListOptions) -> Table:
    """The list for people."""
    pairs = _pairs(run, chosen)
    what = f"{VERDICT_WORDS[wanted.verdict]}, ordered by {MEASURE_WORDS[wanted.sort]}"
    caption = f"Where the models differ most: the first {counted(len(chosen), 'pair')} of: {what}."
    lines = [
        (each.task, pairs[each.pair_id].question, pairs[each.pair_id].answer, each.pair_id, *_numbers(each))
        for each in chosen
    ]
    return Table(caption, ("task", "question", "answer", "pair", *MEASURE_WORDS.values()), lines, words=4)


def _pairs(run: Path, chosen: Sequence[Profile]) -> dict[str, Pair]:
    wanted = {profile.pair_id for profile in chosen}
    found = {pair.pair_id: pair for pair in read_records(run / "pairs" / "pairs.jsonl", Pair) if pair.pair_id in wanted}
    if lost := wanted - found.keys():
        raise UserError(
            f"{run / 'pairs'} does not hold {len(lost):,} of the pairs in {run / 'evidence'}, such as {min(lost)}.\n"
            f"The pairs were made again since. First: parityalign observe {run}"
        )
    return found


def _numbers(profile: Profile) -> list[str]:
    values = (getattr(profile, measure) for measure in Measure)
    return [ABSENT if value is None else f"{value:.3f}" for value in values]
