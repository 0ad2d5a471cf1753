"""The command line: the only module that prints or exits.

Exit status: 0 done, 1 the work failed (what was computed is kept), 2 the request was wrong, 130 interrupted.
Heavy modules are imported inside the commands that need them, so that help, scoring and judging answers that were
made elsewhere stay quick and need no torch.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer
from rich.console import Console

from parityalign import terminal
from parityalign.config import IdentifySettings, RunConfig, load_config, read_config
from parityalign.disk import write_whole
from parityalign.errors import UserError
from parityalign.plugins import find, load_task
from parityalign.seams import Progress, Task
from parityalign.store import RunFolder

if TYPE_CHECKING:
    from parityalign.joinery import Run

P = ParamSpec("P")

DEMO_CONFIG = Path(__file__).parent / "embedded" / "demo.yaml"
INTERRUPTED = 130


class Rule(StrEnum):
    """When an answer counts as right; see `config.IdentifySettings`."""

    METRIC = "metric"
    PAPER = "paper"


app = typer.Typer(
    help="Bring a small vision-language model to parity with a large one on your own images, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was begun.")]


def main() -> None:
    """The entry point of the command `parityalign`."""
    app()


def _command(command: Callable[P, None]) -> Callable[P, None]:
    """Makes a function a command that ends with one message and an exit status, not with a traceback."""

    @wraps(command)
    def ended(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except UserError as problem:
            print(f"parityalign: {problem}", file=sys.stderr)
            raise typer.Exit(problem.exit_status) from problem
        except KeyboardInterrupt as interrupt:
            print("parityalign: interrupted. Resume with the same command.", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from interrupt

    app.command()(ended)
    return ended


@_command
def demo(
    run: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    controls: Annotated[bool, typer.Option("--controls", help="Also train on other things, to compare.")] = False,
) -> None:
    """Run everything on the bundled teacher, student and pictures."""
    from parityalign.joinery import CONFIG, refuse_foreign_folder, refuse_other_run

    refuse_foreign_folder(run)
    config = read_config(DEMO_CONFIG, run)
    with _progress() as progress, RunFolder(run):
        if (run / CONFIG).exists():  # drawing clears `data`, which may be somebody's own
            refuse_other_run(read_config(run / CONFIG), config)
        find("embedded", "generate").write_demo_data(run / "data", config.seed, progress)
    _align(load_config(DEMO_CONFIG, run), controls=controls)


@_command
def run(
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The configuration of the run.")],
    redo: Annotated[bool, typer.Option("--redo", help="Work over a run folder of another configuration.")] = False,
) -> None:
    """Run everything on your images and models; resumes, and redoes only what a change touches."""
    _align(load_config(config), redo=redo)


@_command
def intake(run: RunArgument) -> None:
    """Sort the image folders into sound images and quarantine."""
    _align(_config_of(run), only="intake")


@_command
def annotate(run: RunArgument) -> None:
    """Have the teacher write questions and answers for the images."""
    _align(_config_of(run), only="annotate")


@_command
def identify(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of a run that was begun.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs made elsewhere, as JSON lines.")] = None,
    teacher_answers: Annotated[Path | None, typer.Option(help="The teacher's answers to them.")] = None,
    student_answers: Annotated[Path | None, typer.Option(help="The student's answers to them.")] = None,
    task: Annotated[str | None, typer.Option(help="The task that the pairs belong to.")] = None,
    rule: Annotated[Rule | None, typer.Option(help="The task's own metric (default), or the paper's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the verdicts go, as JSON lines.")] = None,
) -> None:
    """Find the gaps: pairs that the teacher has right and the student wrong.

    Works on a run folder, or with the options on pairs and answers made elsewhere; then no model is loaded.
    """
    needed = {
        "--pairs": pairs,
        "--teacher-answers": teacher_answers,
        "--student-answers": student_answers,
        "--task": task,
        "--out": out,
    }
    given = [name for name, value in {**needed, "--rule": rule}.items() if value]
    if run and given:
        raise UserError(f"{', '.join(given)} cannot go with the run folder {run}: its run.yaml has the settings")
    if run:
        _align(_config_of(run), only="identify")
    elif pairs and teacher_answers and student_answers and task and out:
        _identify_elsewhere(pairs, teacher_answers, student_answers, load_task(task), rule or Rule.METRIC, out)
    else:
        missing = [name for name, value in needed.items() if not value]
        raise UserError(f"identify needs a run folder, or pairs and answers; missing: {', '.join(missing)}")


@_command
def level(run: RunArgument) -> None:
    """Train the student on the gaps, with a share of what it had right."""
    _align(_config_of(run), only="level")


@_command
def evaluate(run: RunArgument) -> None:
    """Score the student before, the student after and the teacher on the labelled test splits."""
    _align(_config_of(run), only="evaluate")


@_command
def report(run: RunArgument) -> None:
    """Write report.html from what the run has so far."""
    from parityalign.report.page import write_report

    print(f"report: {write_report(run)}")


@_command
def score(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="Such as anls or textvqa_accuracy.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="Lines with prediction and answers.")],
    out: Annotated[Path | None, typer.Option(help="Write the scored lines here, not to the terminal.")] = None,
) -> None:
    """Score predictions made anywhere: one JSON line a case, then the mean with its count."""
    from parityalign.scoring import score_file

    scores, lines = [], []
    for row in score_file(metric, file):
        scores.append(row["score"])
        lines.append(json.dumps(row))
    _write_lines(lines, out)
    print(json.dumps({"metric": metric, "mean": sum(scores) / len(scores), "count": len(scores)}))


def _align(config: RunConfig, *, only: str | None = None, redo: bool = False, controls: bool = False) -> None:
    """Runs the pipeline, or the one stage of it that `only` names, and shows what came of it."""
    from parityalign.joinery import opened
    from parityalign.pipeline import align

    with _progress() as progress, opened(config, progress, only=only, redo=redo) as run:
        for stage in align(run):
            if stage == only:
                break
        if controls:
            from parityalign.controls import run_controls

            run_controls(run)
    _show(run, whole=only is None)


def _config_of(run: Path) -> RunConfig:
    """The configuration that lies in a run folder, for the stage commands."""
    path = run / "run.yaml"
    if not path.is_file():
        raise UserError(f"{run} is no run folder: it has no run.yaml. Begin with: parityalign run RUN.yaml")
    # The folder may have been moved since its run.yaml was written.
    return load_config(path).model_copy(update={"run": Path(os.path.abspath(run))})


def _identify_elsewhere(
    pairs: Path, teacher_answers: Path, student_answers: Path, task: Task, rule: Rule, out: Path
) -> None:
    from parityalign.stages.elsewhere import identify_from_files

    settings = IdentifySettings(rule=rule.value)
    verdicts = identify_from_files(
        pairs,
        teacher_answers=teacher_answers,
        student_answers=student_answers,
        task=task,
        settings=settings,
    )
    _write_lines([verdict.model_dump_json() for verdict in verdicts], out)
    print(terminal.counted(Counter(verdict.verdict for verdict in verdicts)))


def _write_lines(lines: list[str], out: Path | None) -> None:
    if out is None:
        print("\n".join(lines))
    elif not out.parent.is_dir():
        raise UserError(f"cannot write {out}: the folder {out.parent} does not exist")
    else:
        write_whole(out, "".join(f"{line}\n" for line in lines))


@contextmanager
def _progress() -> Iterator[Progress]:
    with terminal.progress(_console()) as progress:
        yield progress


def _console() -> Console:
    console = Console(highlight=False)
    # A log file has no width; nothing should be cut off or folded in it.
    return console if console.is_terminal else Console(highlight=False, width=200)


def _show(run: "Run", *, whole: bool) -> None:
    """What was done and why; after a whole run also what came of it."""
    console = _console()
    for outcome in run.outcomes:
        console.print(
            f"{outcome.stage}: {outcome.why} ({terminal.counted(outcome.counts)})", markup=False, soft_wrap=True
        )
        if outcome.note:
            console.print(f"  {outcome.note}", markup=False, soft_wrap=True)
    if whole:
        _show_result(console, run.folder.path, list(run.tasks))


def _show_result(console: Console, run: Path, tasks: list[str]) -> None:
    from parityalign.report.controls import Controls, control_table
    from parityalign.report.files import read_record
    from parityalign.report.flow import VERDICT_WORDS, verdicts_by_task
    from parityalign.report.tables import SCORE_HEADINGS, Scores, headline, score_table

    verdicts = verdicts_by_task(run, tasks)
    kinds = list(next(iter(verdicts.values()), {}))
    rows = [[task, *(f"{counts[kind]:,}" for kind in kinds)] for task, counts in verdicts.items()]
    console.print()
    console.print(terminal.table(["pairs", *(VERDICT_WORDS[kind] for kind in kinds)], rows))
    scores = read_record(run / "scores.json", Scores)
    console.print()
    if scores and scores.tasks:
        console.print(terminal.table(SCORE_HEADINGS, score_table(scores), texts=2))
        console.print(f"\n{headline(scores)}", soft_wrap=True, markup=False)
    else:
        console.print("No task of this run has a test split, so there are no scores.")
    controls = read_record(run / "controls.json", Controls)
    if controls:
        compared = control_table(controls)
        console.print()
        console.print(terminal.table(compared.headings, compared.rows, texts=2))
        console.print(compared.precision, soft_wrap=True, markup=False)
    console.print(f"report: {run / 'report.html'}", soft_wrap=True, markup=False)
