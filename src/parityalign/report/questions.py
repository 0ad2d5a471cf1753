"""What the teacher asked, as tables of plain text: kinds of questions, how varied they are, the most frequent ones."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from parityalign.core import Pair, Reply, Verdict, VerdictKind
from parityalign.report.discrepancy import Table
from parityalign.report.files import read_records
from parityalign.report.flow import in_order
from parityalign.report.tables import ABSENT, percent
from parityalign.stages import WRITTEN, AnswerType, answer_type, opening, same_question

_FREQUENT = 5
_ANY = "any"
"""Shown for the kind of a draw that was asked for none."""


def question_tables(run: Path, tasks: Sequence[str]) -> list[Table]:
    """Kinds asked, written, usable and gaps; distinct questions; the most frequent ones. None before annotate.

    Args:
        run: The run folder.
        tasks: In the order in which they are shown.
    """
    replies = [*read_records(run / "pairs" / "replies.jsonl", Reply)]
    if not replies:
        return []
    own = {reply.pair_id for reply in replies if reply.pair_id}
    pairs: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in read_records(run / "pairs" / "pairs.jsonl", Pair):
        if pair.pair_id in own:
            pairs[pair.task].append(pair)
    order = in_order({reply.task for reply in replies}, tasks)
    verdicts = {each.pair_id: each.verdict for each in read_records(run / "verdicts" / "verdicts.jsonl", Verdict)}
    spread = {task: pairs[task] for task in order}
    return [_kinds(order, replies, verdicts), _variety(spread), _frequent(spread)]


def _kinds(tasks: Sequence[str], replies: Iterable[Reply], verdicts: Mapping[str, VerdictKind]) -> Table:
    """How often each kind was asked for, and what came of it, by the kind that was asked for, whatever was written."""
    counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for reply in replies:
        found = counts[reply.task, reply.kind]
        found["asked"] += 1
        found["written"] += reply.outcome in WRITTEN
        found["usable"] += reply.pair_id is not None
        found["gaps"] += verdicts.get(reply.pair_id or "") == VerdictKind.TEACHER_ONLY
    rows = [
        (task, kind or _ANY, *(f"{found[name]:,}" for name in ("asked", "written", "usable")), _gaps(found, verdicts))
        for (task, kind), found in sorted(counts.items(), key=lambda item: (tasks.index(item[0][0]), item[0][1]))
    ]
    return Table(
        "Kinds of questions as they were asked for; what was written may be of another kind. Written: a question and "
        "an answer could be read; usable: they became a pair.",
        ("task", "kind asked for", "asked", "written", "usable", "gaps"),
        rows,
        2,
    )


def _gaps(found: Counter[str], verdicts: Mapping[str, VerdictKind]) -> str:
    return f"{found['gaps']:,}" if verdicts else ABSENT


def _variety(pairs: Mapping[str, Sequence[Pair]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for task, own in pairs.items():
        distinct = len({same_question(pair.question) for pair in own})
        types = Counter(answer_type(pair.answer) for pair in own)
        rows.append((task, f"{len(own):,}", f"{distinct:,}", *(_part(types[each], len(own)) for each in AnswerType)))
    return Table(
        "Distinct questions, whatever image they are about, and the types of answers.",
        ("task", "pairs", "distinct questions", *(f"answer: {each}" for each in AnswerType)),
        rows,
        1,
    )


def _frequent(pairs: Mapping[str, Sequence[Pair]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for task, own in pairs.items():
        for name, of in (("question", same_question), ("beginning", opening)):
            counts = Counter(of(pair.question) for pair in own)
            most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_FREQUENT]
            rows += [(task, name, text, f"{count:,}", percent(count / len(own))) for text, count in most]
    return Table(
        "The most frequent questions and their most frequent first words.",
        ("task", "", "text", "pairs", "share"),
        rows,
        3,
    )


def _part(count: int, of: int) -> str:
    return f"{count:,} ({percent(count / of)})" if of else ABSENT
