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
from parityalign.config import IdentifySettings, RunConfig
from parityalign.disk import write_whole
from parityalign.errors import UserError
from parityalign.plugins import find, load_task
from parityalign.profiles import Measure, pair_weights
from parityalign.records import VerdictKind
from parityalign.runfile import load_config, read_config, with_teacher
from parityalign.seams import Progress
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


class What(StrEnum):
    """Which pairs an export holds."""

    GAPS = "gaps"
    ALL = "all"


app = typer.Typer(
    help="Bring a small vision-language model to parity with a large one on your own images, without labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PushOption = Annotated[
    str | None, typer.Option("--push", metavar="OWNER/NAME", help="Then upload the levelled student to the hub.")
]
PublicOption = Annotated[bool, typer.Option("--public", help="Let everybody see what --push uploads.")]
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
    teacher: Annotated[
        str | None, typer.Option(help="Another teacher, such as hf:./folder or http://HOST:PORT/v1#NAME.")
    ] = None,
) -> None:
    """Run everything on the bundled teacher, student and pictures."""
    from parityalign.joinery import CONFIG, refuse_foreign_folder, refuse_other_run

    def chosen(config: RunConfig) -> RunConfig:
        return with_teacher(config, teacher, Path.cwd()) if teacher else config

    refuse_foreign_folder(run)
    config = chosen(read_config(DEMO_CONFIG, run))
    with _progress() as progress, RunFolder(run):
        if (run / CONFIG).exists():  # drawing clears `data`, which may be somebody's own
            refuse_other_run(read_config(run / CONFIG), config)
        find("embedded", "generate").write_demo_data(run / "data", config.seed, progress)
    _align(chosen(load_config(DEMO_CONFIG, run)), controls=controls)


@_command
def run(
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The configuration of the run.")],
    redo: Annotated[bool, typer.Option("--redo", help="Work over a run folder of another configuration.")] = False,
    push: PushOption = None,
    public: PublicOption = False,
) -> None:
    """Run everything on your images and models; resumes, and redoes only what a change touches."""
    _check_push(push, public=public)
    _align(load_config(config), redo=redo)
    _push(load_config(config).run, push, public=public)


@_command
def plan(  # noqa: PLR0913 - an option is a parameter
    config: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The configuration of the run.")],
    device: Annotated[str | None, typer.Option(help="Such as a100-80gb; by default this machine.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Pictures of each task that are opened.")] = 32,
    images: Annotated[int | None, typer.Option(min=1, help="Images of each task, where they are not counted.")] = None,
    picture: Annotated[str, typer.Option(help="Size of a picture in pixels, where none is opened.")] = "1024x768",
    failures: Annotated[float, typer.Option(min=0, max=1, help="Share of the pairs that the student has wrong.")] = 0.5,
    measure: Annotated[
        bool | None, typer.Option(help="Time local models on the sample; by default the bundled ones on this machine.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the model hub.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Project tokens, time, memory and money of a run before it begins, and say what was assumed."""
    from parityalign.planning.planner import Options, project
    from parityalign.planning.projection import HEADINGS
    from parityalign.planning.sampling import Ask, size_of_picture

    ask = Ask(sample, size_of_picture(picture), images, offline)
    found = project(load_config(config), Options(ask, device, failures, measure))
    if as_json:
        print(found.as_json())
    else:
        console = _console()
        console.print(terminal.table(HEADINGS, found.table(), texts=2))
        console.print("", *found.lines(), sep="\n", markup=False, soft_wrap=True)


@_command
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[RUN.yaml]", help="Also look at this run's models.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Show what this machine has, and whether and how a run's models would be loaded on it; loads no weights."""
    from parityalign import doctor as looking

    here = looking.machine()
    patients = looking.examine(load_config(config), here) if config else []
    told = [json.dumps(looking.as_record(here, patients), indent=1)] if as_json else looking.lines(here, patients)
    print("\n".join(told))
    if any(patient.problem or patient.fits is False for patient in patients):
        raise typer.Exit(1)


@_command
def intake(run: RunArgument) -> None:
    """Sort the image folders into sound images and quarantine."""
    _align(_config_of(run), only="intake")


@_command
def annotate(run: RunArgument) -> None:
    """Have the teacher write questions and answers for the images."""
    _align(_config_of(run), only="annotate")


@_command
def identify(  # noqa: PLR0913 - an option is a parameter
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="Folder of a run that was begun.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Pairs made elsewhere; see docs/interchange.md.")] = None,
    teacher_answers: Annotated[Path | None, typer.Option(help="The teacher's answers to them.")] = None,
    student_answers: Annotated[Path | None, typer.Option(help="The student's answers to them.")] = None,
    task: Annotated[str | None, typer.Option(help="The task that the pairs belong to.")] = None,
    rule: Annotated[Rule | None, typer.Option(help="The task's own metric (default), or the paper's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the verdicts go, as JSON lines.")] = None,
    pairs_format: Annotated[
        str | None, typer.Option(help="pairs, sharegpt, first-release or parquet; else the file tells.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns of a Parquet file, such as question=q,answer=a,pair_id=id.")
    ] = None,
) -> None:
    """Find the gaps: pairs that the teacher has right and the student wrong.

    Works on a run folder, or with the options on pairs and answers made elsewhere; then no model is loaded.
    """
    from parityalign.stages.elsewhere import identify_from_files

    needed = {
        "--pairs": pairs,
        "--teacher-answers": teacher_answers,
        "--student-answers": student_answers,
        "--task": task,
        "--out": out,
    }
    others = {"--rule": rule, "--pairs-format": pairs_format, "--columns": columns}
    given = [name for name, value in {**needed, **others}.items() if value]
    if run and given:
        raise UserError(f"{', '.join(given)} cannot go with the run folder {run}: its run.yaml has the settings")
    if run:
        _align(_config_of(run), only="identify")
    elif pairs and teacher_answers and student_answers and task and out:
        verdicts = identify_from_files(
            pairs,
            teacher_answers=teacher_answers,
            student_answers=student_answers,
            task=load_task(task),
            settings=IdentifySettings(rule=(rule or Rule.METRIC).value),
            form=pairs_format,
            columns=_named_columns(columns),
        )
        _write_lines([verdict.model_dump_json() for verdict in verdicts], out)
        print(terminal.counted(Counter(verdict.verdict for verdict in verdicts)))
    else:
        missing = [name for name, value in needed.items() if not value]
        raise UserError(f"identify needs a run folder, or pairs and answers; missing: {', '.join(missing)}")


@_command
def level(run: RunArgument, push: PushOption = None, public: PublicOption = False) -> None:
    """Train the student on the gaps, with a share of what it had right."""
    _check_push(push, public=public)
    _align(_config_of(run), only="level")
    _push(run, push, public=public)


@_command
def evaluate(run: RunArgument) -> None:
    """Score the student before, the student after and the teacher on the labelled test splits."""
    _align(_config_of(run), only="evaluate")


@_command
def profile(  # noqa: PLR0913 - an option is a parameter
    run: RunArgument,
    task: Annotated[str | None, typer.Option(help="Only the pairs of this task.")] = None,
    verdict: Annotated[
        VerdictKind, typer.Option(help="The list's pairs: by default the gaps.")
    ] = VerdictKind.TEACHER_ONLY,
    sort: Annotated[Measure, typer.Option(help="What orders the list.")] = Measure.CONFIDENCE_GAP,
    top: Annotated[int | None, typer.Option(min=1, help="Pairs of the list; by default 10, in a file all.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Where the list goes.")] = None,
) -> None:
    """Show how, and how much, the two models differ on the pairs, and list those where they differ most."""
    from parityalign.report.differences import difference_tables
    from parityalign.report.listing import FIRST, Wanted, list_table, listed, of_task, read_profiles, rows

    config, console = _config_of(run), _console()
    everything = read_profiles(run)
    profiles = of_task(everything, task)
    wanted = Wanted(verdict, sort, top if out else top or FIRST)
    chosen = listed(profiles, wanted)
    tables = difference_tables(profiles, list(config.tasks), seed=config.seed)
    for told in tables if out else [*tables, list_table(run, chosen, wanted)]:
        terminal.show_table(console, told.caption, told.headings, told.rows, texts=told.words)
    if out:
        weights = pair_weights(everything, config.evidence)
        _write_lines([json.dumps(row) for row in rows(run, chosen, weights)], out)
        print(f"list: {out} ({len(chosen):,} pairs)")


@_command
def report(run: RunArgument) -> None:
    """Write report.html from what the run has so far."""
    from parityalign.report.page import write_report

    print(f"report: {write_report(run)}")


@_command
def export(
    run: RunArgument,
    form: Annotated[str, typer.Option("--format", help="Such as llava, messages, trl, hf-dataset, evaluation-log.")],
    what: Annotated[What, typer.Option(help="The gaps, or all pairs with their verdicts.")] = What.GAPS,
    prompted: Annotated[
        bool,
        typer.Option("--prompted", help="Write questions inside the task's answer prompt, as the models saw them."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The folder to write; by default RUN/exports/FORMAT.")] = None,
) -> None:
    """Write what a run found in a form that other tools read; see docs/interchange.md."""
    from parityalign import exporting

    done = exporting.export(_config_of(run), form, everything=what == What.ALL, prompted=prompted, out=out)
    print(f"{'export' if done.made else 'up to date'}: {done.path} ({terminal.counted(done.counts)})")


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


def _check_push(repo: str | None, *, public: bool) -> None:
    """Refuses an upload that could not work, before there is anything to upload."""
    if repo is not None:
        from parityalign.sharing import check_name

        check_name(repo)
    elif public:
        raise UserError("--public says who may see what --push uploads; give --push OWNER/NAME too")


def _push(run: Path, repo: str | None, *, public: bool) -> None:
    if repo is not None:
        from parityalign.sharing import push

        print(f"pushed: {push(run, repo, public=public)}")


def _config_of(run: Path) -> RunConfig:
    """The configuration that lies in a run folder, for the stage commands."""
    path = run / "run.yaml"
    if not path.is_file():
        raise UserError(f"{run} is no run folder: it has no run.yaml. Begin with: parityalign run RUN.yaml")
    # The folder may have been moved since its run.yaml was written.
    return load_config(path).model_copy(update={"run": Path(os.path.abspath(run))})


def _named_columns(columns: str | None) -> dict[str, str]:
    """{our name: the file's name} from `question=q,answer=a`."""
    named = dict(part.split("=", 1) for part in columns.split(",") if "=" in part) if columns else {}
    if columns and len(named) < columns.count(",") + 1:
        raise UserError(f"--columns is {columns!r}; write it like question=q,answer=a,image=img,pair_id=id")
    return named


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
    from parityalign.report.kept import FORGOTTEN_HEADINGS, forgotten_table, speed_line
    from parityalign.report.tables import (
        COVERAGE_HEADINGS,
        PART_HEADINGS,
        SCORE_HEADINGS,
        Scores,
        coverage_table,
        headline,
        part_table,
        score_table,
    )

    verdicts = verdicts_by_task(run, tasks)
    kinds = list(next(iter(verdicts.values()), {}))
    rows = [[task, *(f"{counts[kind]:,}" for kind in kinds)] for task, counts in verdicts.items()]
    console.print()
    console.print(terminal.table(["pairs", *(VERDICT_WORDS[kind] for kind in kinds)], rows))
    scores = read_record(run / "scores.json", Scores)
    console.print()
    if scores and scores.tasks:
        console.print(terminal.table(SCORE_HEADINGS, score_table(scores), texts=2))
        tables = (
            (PART_HEADINGS, part_table(scores), 1),
            (COVERAGE_HEADINGS, coverage_table(scores), 2),
            (FORGOTTEN_HEADINGS, forgotten_table(scores.forgotten), 1),
        )
        for headings, listed, texts in tables:
            if listed:
                console.print()
                console.print(terminal.table(headings, listed, texts=texts))
        console.print(f"\n{headline(scores)}", soft_wrap=True, markup=False)
        if said := speed_line(scores.speed):
            console.print(said, soft_wrap=True, markup=False)
    else:
        console.print("No task of this run has a test split, so there are no scores.")
    controls = read_record(run / "controls.json", Controls)
    if controls:
        compared = control_table(controls)
        console.print()
        console.print(terminal.table(compared.headings, compared.rows, texts=2))
        console.print(compared.precision, soft_wrap=True, markup=False)
    console.print(f"report: {run / 'report.html'}", soft_wrap=True, markup=False)
