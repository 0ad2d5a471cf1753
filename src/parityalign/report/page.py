"""Writes a run's `report.html`: a single file without scripts that needs no network.

Much of its text is from models, so the template escapes everything and the page forbids scripts as well.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from parityalign.core import (
    DISCREPANCY_FOLDER,
    EVENTS,
    Controls,
    Measure,
    Pair,
    Rejected,
    Scores,
    UserError,
    Verdict,
    VerdictKind,
    read_manifest,
    write_whole,
)
from parityalign.report.attention_maps import maps_by_pair
from parityalign.report.beside_teacher import BESIDE_HEADINGS, Beside, beside_table, beside_teacher
from parityalign.report.charts import score_chart, verdict_chart
from parityalign.report.controls import control_table
from parityalign.report.curves import curve_charts, curves_in, events_in
from parityalign.report.discrepancy import MEASURE_WORDS, measure_table, relation_tables, spreads
from parityalign.report.examples import won_and_lost
from parityalign.report.files import is_current, read_record, read_records, read_settings
from parityalign.report.flow import VERDICT_WORDS, flow, in_order, verdicts_by_task
from parityalign.report.gallery import Exhibit, choose_gaps, exhibit
from parityalign.report.held_out import HELD_OUT_HEADINGS, held_out_line, held_out_table
from parityalign.report.intervals import other_trainings
from parityalign.report.listing import read_pair_discrepancies
from parityalign.report.picking import picking_of
from parityalign.report.questions import question_tables
from parityalign.report.retention import FORGOTTEN_HEADINGS, SPEED_HEADINGS, forgotten_table, speed_line, speed_table
from parityalign.report.spreads import spread_chart
from parityalign.report.summary import summary_of
from parityalign.report.tables import (
    COVERAGE_HEADINGS,
    PAPER_HEADINGS,
    PART_HEADINGS,
    SCORE_HEADINGS,
    coverage_table,
    headline,
    paper_table,
    part_table,
    score_table,
)
from parityalign.report.words import in_words
from parityalign.stages import pairs_in, with_added

GAPS_SHOWN = 24
QUARANTINED_SHOWN = 50
LONGEST_TEXT = 600
"""Most characters of a model's text; a student can ramble."""
EVENT_TIME = re.compile(r'^{"time": "(\d{4}-\d\d-\d\d)T(\d\d:\d\d)', re.MULTILINE)
"""Date, hours and minutes at the start of a line of `events.jsonl`."""
FILES: Mapping[str, str] = {
    "scores.json": "all scores, shares and speeds, with intervals",
    "verdicts/gaps.jsonl": "the gaps that the student was trained on",
    "verdicts/verdicts.jsonl": "what was said of every pair, with the reason",
    "pairs/pairs.jsonl": "all pairs of question and answer",
    "student/README.md": "the card of the levelled student, in whose folder it lies",
    "images/quarantine.jsonl": "images that were set aside, with reasons",
    "events.jsonl": "when what began and ended, and the losses of the training",
    "run.yaml": "the settings",
}
"""Files of a run that the page links to, where they are there."""


class Section(NamedTuple):
    """A part of the page; its template is called by its anchor."""

    anchor: str
    title: str
    of: str = ""
    """The fact without which it is left out; empty: it is always there."""


SECTIONS = (
    Section("examples", "Won and lost", of="examples"),
    Section("scores", "Scores by task"),
    Section("held-out", "On held-out images, without labels", of="held_out_rows"),
    Section("kept", "What levelling kept, and what it costs", of="kept"),
    Section("flow", "From images to scores"),
    Section("asked", "What the teacher asked", of="question_tables"),
    Section("verdicts", "How the pairs were judged"),
    Section("training", "The training", of="training_charts"),
    Section("gaps", "Some of the gaps"),
    Section("controls", "Controls", of="controls"),
    Section("picking", "What picking gaps brings", of="picking"),
    Section("differences", "How the two models differ", of="differences"),
    Section("set-aside", "Images set aside"),
    Section("words", "Words on this page"),
    Section("files", "Files of this run", of="files"),
    Section("settings", "Settings"),
)


def write_report(run: Path) -> Path:
    """Writes RUN/report.html from what the run has so far, unless the file is unchanged.

    Raises:
        UserError: it is not a run folder, or one of its files cannot be read.
    """
    if not (run / "run.yaml").is_file() and not (run / "images").is_dir():
        raise UserError(f"{run} is not a run folder (it has neither run.yaml nor images/). Name a run's folder.")
    page = environment().get_template("page.html").render(_facts(run))
    path = run / "report.html"
    # Text without a UTF-8 form, such as part of a file name in another encoding, becomes a question mark.
    content = page.encode("utf-8", "replace")
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, content)
    return path


@cache
def environment() -> Environment:
    """Where the templates of pages lie, with the filters that they use."""
    made = Environment(
        loader=PackageLoader("parityalign.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(clipped=_clipped, cell=_cell, in_words=in_words)
    return made


def _facts(run: Path) -> dict[str, object]:
    settings, said = read_settings(run / "run.yaml")
    scores = read_record(run / "scores.json", Scores)
    tasks = list(scores.tasks if scores else said.get("tasks") or ())
    verdicts, seed = verdicts_by_task(run, tasks), said.get("seed", 0)
    beside = beside_teacher(run, scores)
    facts = {
        "name": run.resolve().name,
        "date": _date(run),
        "settings": settings,
        "models": _models(said),
        "seed": seed,
        "summary": summary_of(run, scores, verdicts, beside),
        "taken": not (scores and scores.held_out and not scores.held_out.accepted),
        "examples": won_and_lost(run, scores, tasks, seed=seed),
        "flow": flow(run, tasks, verdicts, scores, with_added(said.get("stages") or ())),
        **_score_facts(scores),
        "other_trainings": other_trainings(run),
        **_kept_facts(scores, beside),
        "question_tables": question_tables(run, tasks),
        **_verdict_facts(verdicts),
        "training_charts": curve_charts(curves_in(events_in(run / EVENTS))),
        **_control_facts(run, verdicts),
        **_discrepancy_facts(run, seed, tasks),
        **_gap_facts(run, seed, tasks),
        **_quarantine_facts(run),
        "files": {name: words for name, words in FILES.items() if (run / name).is_file()},
    }
    return {**facts, "sections": [each for each in SECTIONS if not each.of or facts[each.of]]}


def _score_facts(scores: Scores | None) -> dict[str, object]:
    if scores is None or not scores.tasks:
        return {"score_chart": None, "score_rows": [], "part_rows": [], "coverage_rows": [], "paper_rows": []}
    return {
        "headline": headline(scores),
        "score_chart": score_chart(scores),
        "score_headings": SCORE_HEADINGS,
        "score_rows": score_table(scores),
        "part_headings": PART_HEADINGS,
        "part_rows": part_table(scores),
        "coverage_headings": COVERAGE_HEADINGS,
        "coverage_rows": coverage_table(scores),
        "paper_headings": PAPER_HEADINGS,
        "paper_rows": paper_table(scores),
    }


def _kept_facts(scores: Scores | None, beside: Beside) -> dict[str, object]:
    speed = scores.speed if scores else None
    found = {
        "speed_line": speed_line(speed).capitalize(),
        "speed_headings": SPEED_HEADINGS,
        "speed_rows": speed_table(speed),
        "beside": beside,
        "beside_headings": BESIDE_HEADINGS,
        "beside_rows": beside_table(beside) if scores else [],
        "held_out_line": held_out_line(scores.held_out if scores else None),
        "held_out_headings": HELD_OUT_HEADINGS,
        "held_out_rows": held_out_table(scores.held_out if scores else None),
        "forgotten_headings": FORGOTTEN_HEADINGS,
        "forgotten_rows": forgotten_table(scores.forgotten if scores else None),
    }
    return {**found, "kept": found["speed_line"] or found["forgotten_rows"] or found["beside_rows"]}


def _verdict_facts(verdicts: Mapping[str, Mapping[VerdictKind, int]]) -> dict[str, object]:
    kinds = next(iter(verdicts.values()), {})
    return {
        "verdicts": verdicts,
        "verdict_words": {kind: VERDICT_WORDS[kind] for kind in kinds},
        "verdict_chart": verdict_chart(verdicts) if verdicts else None,
    }


def _control_facts(run: Path, verdicts: Mapping[str, Mapping[VerdictKind, int]]) -> dict[str, object]:
    controls = read_record(run / "controls.json", Controls)
    table = controls and control_table(controls)
    return {
        "controls": table,
        "precision": table.precision if table else "",
        "picking": picking_of(run, verdicts, controls),
    }


def _discrepancy_facts(run: Path, seed: int, tasks: Sequence[str]) -> dict[str, object]:
    """How the two models differ; empty if they were not compared."""
    pairs = read_pair_discrepancies(run) if is_current(run, DISCREPANCY_FOLDER) else []
    if not pairs:
        return {"differences": [], "relations": []}
    differences = []
    for measure in Measure:
        found, title = spreads(pairs, measure, tasks), MEASURE_WORDS[measure].capitalize()
        chart = spread_chart(measure, title, found) if found else None
        differences.append((title, chart, measure_table(pairs, measure, tasks)))
    return {"differences": differences, "relations": relation_tables(pairs, tasks, seed=seed)}


def _gap_facts(run: Path, seed: int, tasks: Sequence[str]) -> dict[str, object]:
    gaps = list(pairs_in(run, "verdicts/gaps.jsonl"))
    order = in_order({pair.task for pair in gaps}, tasks)
    chosen = sorted(choose_gaps(gaps, seed=seed, limit=GAPS_SHOWN), key=lambda pair: order.index(pair.task))
    return {"gap_count": len(gaps), "exhibits": _exhibits(run, chosen)}


def _exhibits(run: Path, chosen: Iterable[Pair]) -> list[Exhibit]:
    wanted = {pair.pair_id: pair for pair in chosen}
    known = {
        verdict.pair_id: verdict
        for verdict in read_records(run / "verdicts" / "verdicts.jsonl", Verdict)
        if verdict.pair_id in wanted
    }
    maps = maps_by_pair(run / DISCREPANCY_FOLDER, wanted) if is_current(run, DISCREPANCY_FOLDER) else {}
    return [exhibit(pair, known.get(pair_id), maps.get(pair_id, {})) for pair_id, pair in wanted.items()]


def _quarantine_facts(run: Path) -> dict[str, object]:
    rejected = read_records(run / "images" / "quarantine.jsonl", Rejected)
    shown = list(islice(rejected, QUARANTINED_SHOWN))
    more = sum(1 for _ in rejected)
    finished = read_manifest(run / "images") is not None
    return {"intake_finished": finished, "quarantined": shown, "quarantined_more": more}


def _models(said: Mapping[str, Any]) -> str:
    second = (said.get("verify") or {}).get("second_teacher")
    models = {"teacher": said.get("teacher"), "second_teacher": second, "student": said.get("student")}
    named = [f"{part.replace('_', ' ')} {spec}{_commit(said, part)}" for part, spec in models.items() if spec]
    return ", ".join(named)


def _commit(said: Mapping[str, Any], part: str) -> str:
    commit = ((said.get("loading") or {}).get(part) or {}).get("commit")
    return f" at {commit[:12]}" if commit else ""


def _date(run: Path) -> str:
    """The time of the run's last event, in UTC; empty without events."""
    events = run / "events.jsonl"
    if not events.is_file():
        return ""
    stamps = EVENT_TIME.findall(events.read_text(encoding="utf-8", errors="replace"))
    return " ".join((*stamps[-1], "UTC")) if stamps else ""


def _cell(text: str) -> Markup:
    """A number with its interval below it, to keep tables narrow."""
    number, bracket, interval = text.partition(" [")
    return Markup("{}<small>[{}</small>").format(number, interval) if bracket else escape(number)


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} ... ({len(text):,} characters)"
