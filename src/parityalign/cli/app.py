"""The commands.

Exit status: 0 done, 1 the work failed (what was computed is kept), 2 the request was wrong, 130 interrupted.
Packages load their modules lazily, so help, `score` and `identify --pairs` are quick and need no torch.
"""

import json
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

import parityalign
from parityalign import demo, export, pipeline, planning, report, stages, tasks, viewer
from parityalign.cli import records, show
from parityalign.cli.first_config import STUDENT, TEACHER, write_first_config
from parityalign.cli.options import (
    ConfigArgument,
    DetailsOption,
    PublicOption,
    PushOption,
    Rule,
    RunArgument,
    SetOption,
    What,
)
from parityalign.cli.tables import counted
from parityalign.cli.telling import INTERRUPTED, JsonOption, Told, telling
from parityalign.cli.terminal import say, say_everything_so
from parityalign.config import IdentifySettings, RunConfig, config_in, load_config, read_config, with_teacher
from parityalign.core import (
    CONFIG,
    DEMO_DATA,
    Measure,
    RunFolder,
    UserError,
    VerdictKind,
    disk_faults_in_words,
    part_names,
    trusting_files,
    wait_passively,
    write_whole,
)

P = ParamSpec("P")

DEMO_CONFIG = Path(__file__).parent.parent / "demo" / "demo.yaml"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="To begin with: parityalign init, parityalign plan RUN.yaml, parityalign run RUN.yaml.",
)


def main() -> None:
    """Does what the arguments of this process say, and ends it."""
    say_everything_so()
    wait_passively()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    typer.main.get_command(app)()  # not app(), which has tracebacks printed its own way


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"parityalign {parityalign.__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Bring a small vision-language model to parity with a large one on your own images, without labels."""


def _command(
    name: str, *examples: str, help: str | None = None
) -> Callable[[Callable[P, Told | None]], Callable[..., None]]:
    """Registers a function as a command; a UserError ends it with a message and an exit status, not a traceback.

    What it returns is printed where `--json` is given.

    Args:
        name: The command's name.
        examples: How it is used, without the program's name.
        help: What it does; None: the function's docstring.
    """

    def made(command: Callable[P, Told | None]) -> Callable[..., None]:
        told = telling(command)

        @wraps(told)
        def ended(*args: object, **kwargs: object) -> None:
            try:
                with disk_faults_in_words():
                    told(*args, **kwargs)
            except UserError as problem:
                say(f"parityalign: {problem}", error=True)
                raise typer.Exit(problem.exit_status) from problem
            except KeyboardInterrupt as interrupt:
                say("parityalign: interrupted. Resume with the same command.", error=True)
                raise typer.Exit(INTERRUPTED) from interrupt

        shown = "\n\n".join(f"parityalign {example}" for example in examples)
        app.command(name, help=help, epilog=f"Examples:\n\n{shown}")(ended)
        return ended

    return made


@_command("demo", "demo --pictures 40 --run runs/small", "demo --controls")
def demo_command(
    run: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    controls: Annotated[bool, typer.Option("--controls", help="Also train control students on other data.")] = False,
    details: DetailsOption = False,
    teacher: Annotated[
        str | None, typer.Option(help="Use another teacher, such as hf:./folder or http://HOST:PORT/v1#NAME.")
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Pictures in each task's pool; its test has a fifth. (default: 1500)"),
    ] = None,
) -> Told:
    """Run all stages on the bundled teacher, student and pictures."""

    def chosen(config: RunConfig) -> RunConfig:
        return with_teacher(config, teacher, Path.cwd()) if teacher else config

    config = chosen(read_config(DEMO_CONFIG, run))
    pipeline.refuse_shared_folder(config, drawn=config.run / DEMO_DATA)
    pipeline.refuse_foreign_folder(run)
    with pipeline.shown_progress() as progress, RunFolder(run):
        if (run / CONFIG).exists():  # drawing clears `data`, which may be the user's own
            pipeline.refuse_other_run(read_config(run / CONFIG), config)
        demo.write_demo_data(run / DEMO_DATA, config.seed, progress, pictures=pictures)
    then = demo.run_controls if controls else None
    return _align(chosen(load_config(DEMO_CONFIG, run)), then=then, details=details)


@_command("init", "init", "init RUN.yaml --images photos --teacher hf:Qwen/Qwen2-VL-7B-Instruct")
def init_command(
    file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The file to write.")] = Path("RUN.yaml"),
    images: Annotated[str | None, typer.Option(help="A folder of images, or another source of them.")] = None,
    teacher: Annotated[str | None, typer.Option(help="As in RUN.yaml, such as hf:OWNER/NAME.")] = None,
    student: Annotated[str | None, typer.Option(help="As in RUN.yaml, such as hf:OWNER/NAME.")] = None,
) -> None:
    """Write a RUN.yaml for your images and models; asks for what no option says."""

    images = images or typer.prompt("Where are your images (a folder)", type=str)
    teacher = teacher or typer.prompt("The teacher, a large model", default=TEACHER, type=str)
    student = student or typer.prompt("The student, a small model", default=STUDENT, type=str)
    write_first_config(file, images=images, teacher=teacher, student=student)
    say(f"written: {file}\nnext: parityalign plan {file}, parityalign preview {file}, parityalign run {file}")


@_command("run", "run RUN.yaml", "run RUN.yaml --until identify", "run RUN.yaml --set level.epochs=3 --dry-run")
def run_command(  # noqa: PLR0913 - an option is a parameter
    config: ConfigArgument,
    changes: SetOption = None,
    redo: Annotated[bool, typer.Option("--redo", help="Work over a run folder that has other models.")] = False,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="The last stage to do, such as identify.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done and asked, and why.")] = False,
    trusts: Annotated[bool, typer.Option("--trust", help="Do not compare files with their digests.")] = False,
    details: DetailsOption = False,
    controls: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Also train as long on something else, to compare: random, all, gaps, format; with commas.",
        ),
    ] = None,
    push: PushOption = None,
    public: PublicOption = False,
) -> Told:
    """Run all stages on your images and models; resumes, and redoes only what a change affects."""

    loaded = load_config(config, changes=changes or ())
    if dry:
        with pipeline.shown_progress() as progress:
            steps = pipeline.dry_steps(loaded, progress)
        show.show_steps(pipeline.plain_console(), steps)
        return Told(lambda: records.steps_record(loaded.run, steps))
    export.check_push(push, public=public)
    names = pipeline.control_names(controls) if controls else ()
    if names and until:
        raise UserError(f"--controls compares with the levelled student, which --until {until} does not make")
    then = partial(pipeline.run_controls, names=names) if names else None
    told = _align(loaded, until=until, redo=redo, then=then, trusts=trusts, details=details)
    return _push(told, loaded.run, push, public=public)


@_command("preview", "preview RUN.yaml --pairs 5")
def preview_command(
    config: ConfigArgument,
    changes: SetOption = None,
    count: Annotated[int, typer.Option("--pairs", min=1, help="How many pairs to ask for, one an image.")] = 10,
) -> Told:
    """Ask for a few pairs, judge them and show them, before the rest is paid for; the run asks only for the rest."""

    found: list[report.Preview] = []
    run = pipeline.open_run(load_config(config, changes=changes or ()))
    run.work(lambda working: found.extend(pipeline.make_preview(working, count)))
    show.show_preview(pipeline.plain_console(), found, run.path)
    return Told(lambda: records.preview_record(run.path, found))


@_command("status", "status runs/signs")
def status_command(run: RunArgument) -> Told:
    """Show how far a run is: its stages, what is up to date, what they counted, asked and took."""

    config = config_in(run)
    with pipeline.shown_progress() as progress:
        found = pipeline.status_of(config, progress)
    show.show_status(pipeline.plain_console(), found)
    return Told(lambda: records.status_record(config.run, found))


@_command("view", "view runs/signs", "view runs/a runs/b --port 8765")
def view_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of existing runs.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine. (default: a free one)")] = 0,
) -> None:
    """Show runs in a browser on this machine: pairs to review, test questions, progress, and the models to try."""

    viewer.refuse_missing_packages()
    viewer.serve_runs(runs, port=port, say=say)


@_command("answers", "answers runs/signs --drop-unused")
def answers_command(
    run: RunArgument,
    drop: Annotated[bool, typer.Option("--drop-unused", help="Drop what no artifact of any run is made from.")] = False,
) -> Told:
    """Show what the run's answer store holds, and how large it is."""

    with pipeline.answers_of(config_in(run)) as store:
        dropped = store.drop_unused() if drop else None
        if dropped is not None:
            say(f"dropped: {dropped:,}")
        held, path = store.holdings(), store.path
    show.show_holdings(pipeline.plain_console(), held, path)
    return Told(lambda: records.holdings_record(held, path, dropped))


@_command("plan", "plan RUN.yaml", "plan RUN.yaml --device a100-80gb --images 20000 --offline")
def plan_command(  # noqa: PLR0913 - an option is a parameter
    config: ConfigArgument,
    changes: SetOption = None,
    device: Annotated[str | None, typer.Option(help="Plan for this device, such as a100-80gb.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Pictures to open per task.")] = 32,
    images: Annotated[int | None, typer.Option(min=1, help="Assume so many images per task.")] = None,
    image_size: Annotated[str, typer.Option(help="Picture size in pixels, if none is opened.")] = "1024x768",
    gap_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Assumed share of pairs that the student has wrong.")
    ] = 0.5,
    benchmark: Annotated[
        bool | None, typer.Option(help="Time local models on the sample. (default: only bundled models)")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the hub.")] = False,
) -> Told:
    """Estimate a run's tokens, time, memory and money before it begins, and list the assumptions."""

    sampling = planning.SamplingOptions(sample, planning.size_of_picture(image_size), images, offline)
    found = planning.project_run(
        load_config(config, changes=changes or ()), planning.PlanOptions(sampling, device, gap_rate, benchmark)
    )
    show.show_projection(pipeline.plain_console(), found)
    return Told(found.record)


@_command("doctor", "doctor", "doctor RUN.yaml")
def doctor_command(
    config: Annotated[Path | None, typer.Argument(metavar="[RUN.yaml]", help="Also check this run's models.")] = None,
) -> Told:
    """Describe this machine and check whether a run's models would load on it; loads no weights."""

    here = planning.inspect_machine()
    checks = planning.examine_models(load_config(config), here) if config else []
    say("\n".join(planning.doctor_lines(here, checks)))
    faulty = any(check.problem or check.fits is False for check in checks)
    return Told(lambda: planning.doctor_record(here, checks), status=int(faulty))


@_command(
    "identify",
    "identify runs/signs",
    "identify --pairs pairs.jsonl --teacher-answers t.jsonl --student-answers s.jsonl --task textvqa --out out.jsonl",
)
def identify_command(  # noqa: PLR0913 - an option is a parameter
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="The folder of an existing run.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="A file of pairs; see docs/interchange.md.")] = None,
    teacher_answers: Annotated[Path | None, typer.Option(help="File of the teacher's answers to the pairs.")] = None,
    student_answers: Annotated[Path | None, typer.Option(help="File of the student's answers to the pairs.")] = None,
    task: Annotated[str | None, typer.Option(help="The task of the pairs, such as textvqa.")] = None,
    rule: Annotated[
        Rule | None,
        typer.Option(help="How answers are compared: judge (default), the task's metric, or paper."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the verdicts, as JSON lines.")] = None,
    pairs_format: Annotated[
        str | None,
        typer.Option(help="Format of --pairs; see docs/interchange.md. (default: detected)"),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Column names of a table, such as question=q,answer=a,pair_id=id.")
    ] = None,
) -> Told:
    """Find the gaps: pairs that the teacher has right and the student wrong.

    Works on a run folder, or with --pairs on existing pairs and answers; then no model is loaded.
    """

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
        raise UserError(f"{', '.join(given)} are not for the run folder {run}: its run.yaml has the settings")
    if run:
        return _align(config_in(run), only="identify")
    if pairs and teacher_answers and student_answers and task and out:
        verdicts = stages.identify_from_files(
            pairs,
            teacher_answers=teacher_answers,
            student_answers=student_answers,
            task=tasks.load_task(task),
            settings=IdentifySettings(rule=(rule or Rule.JUDGE).value),
            form=pairs_format,
            columns=stages.named_columns(columns),
        )
        _write_lines([verdict.model_dump_json() for verdict in verdicts], out)
        counts = Counter(str(verdict.verdict) for verdict in verdicts)
        say(counted(counts))
        return Told(lambda: {"out": out, "verdicts": counts})
    missing = [name for name, value in needed.items() if not value]
    raise UserError(f"identify needs a run folder, or pairs and answers; missing: {', '.join(missing)}")


@_command("discrepancy", "discrepancy runs/signs --top 20", "discrepancy runs/signs --out gaps.jsonl")
def discrepancy_command(  # noqa: PLR0913 - an option is a parameter
    run: RunArgument,
    task: Annotated[str | None, typer.Option(help="List only pairs of this task.")] = None,
    verdict: Annotated[
        VerdictKind, typer.Option(help="List pairs with this verdict; teacher_only are the gaps.")
    ] = VerdictKind.TEACHER_ONLY,
    sort: Annotated[Measure, typer.Option(help="Measure to sort by, largest first.")] = Measure.CONFIDENCE_GAP,
    top: Annotated[int | None, typer.Option(min=1, help="Number of pairs. (default: 10, with --out all)")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Write the list here.")] = None,
) -> Told:
    """Show how much the two models differ on the pairs, and list the pairs where they differ most.

    Scores both models teacher-forced first, where that is missing or out of date, even if run.yaml does not ask for it.

    Compares rationales only where `discrepancy: {rationales: true}` or the objective asks for them.
    """

    config = config_in(run)
    if not report.holds_discrepancy(config):
        _align(config, only="discrepancy")
    everything = report.read_pair_discrepancies(run)
    pairs = report.of_one_task(everything, task)
    wanted = report.ListOptions(verdict, sort, top if out else top or report.LISTED_BY_DEFAULT)
    chosen = report.listed_pairs(pairs, wanted)
    tables = report.discrepancy_tables(pairs, list(config.tasks), seed=config.seed)
    show.show_tables(pipeline.plain_console(), tables if out else [*tables, report.list_table(run, chosen, wanted)])

    def rows() -> list[dict[str, object]]:
        return report.listed_rows(run, chosen, stages.pair_weights(everything, config.discrepancy))

    if out:
        _write_lines([json.dumps(row) for row in rows()], out)
        say(f"list: {out} ({len(chosen):,} pairs)")
    return Told(lambda: {"run": run, "tables": records.tables_record(tables), "out": out, "pairs": rows()})


@_command("level", "level runs/signs", "level runs/signs --push OWNER/NAME")
def level_command(run: RunArgument, push: PushOption = None, public: PublicOption = False) -> Told:
    """Train the student on the gaps, with a share of what it had right."""

    export.check_push(push, public=public)
    return _push(_align(config_in(run), only="level"), run, push, public=public)


def _add_stage_commands() -> None:
    """Adds a command for each stage without one above, including those of other packages."""
    own = {command.name for command in app.registered_commands}
    told = {stage.name: stage.help for stage in stages.STAGES if stage.asked_by == stage.name}
    told |= {name: f"Do the stage {name} of another package." for name in part_names("stages")}
    for name, sentence in told.items():
        if name not in own:
            _command(name, f"{name} runs/signs", help=sentence)(_stage_command(name))


def _stage_command(name: str) -> Callable[[Path], Told]:
    def command(run: RunArgument) -> Told:
        return _align(config_in(run), only=name)

    return command


@_command("report", "report runs/signs", "report runs/signs --details")
def report_command(run: RunArgument, details: DetailsOption = False) -> Told:
    """Write report.html from what the run has so far."""

    written = report.write_report(run)
    say(f"report: {written}")
    if details:
        show.show_result(pipeline.plain_console(), run, list(config_in(run).tasks), details=True)
    return Told(lambda: {"run": run, "report": written})


@_command("export", "export runs/signs --format messages", "export runs/signs --format hf-dataset --what all")
def export_command(
    run: RunArgument,
    form: Annotated[str, typer.Option("--format", help="llava, messages, trl, hf-dataset, evaluation-log ...")],
    what: Annotated[What, typer.Option(help="Export the gaps, or all pairs with verdicts.")] = What.GAPS,
    prompted: Annotated[
        bool,
        typer.Option("--prompted", help="Write questions within the task's answer prompt, as the models saw them."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The folder to write. (default: RUN/exports/FORMAT)")] = None,
) -> Told:
    """Export a run's gaps or pairs in a format of other tools; see docs/interchange.md."""

    done = export.export_run(config_in(run), form, everything=what == What.ALL, prompted=prompted, out=out)
    say(f"{'export' if done.made else 'up to date'}: {done.path} ({counted(done.counts)})")
    return Told(lambda: {"run": run, "format": form, "folder": done.path, "made": done.made, "counts": done.counts})


@_command("score", "score anls predictions.jsonl", "score textvqa_accuracy predictions.jsonl --out scored.jsonl")
def score_command(
    metric: Annotated[str, typer.Argument(metavar="METRIC", help="A metric, such as anls or textvqa_accuracy.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON lines with prediction and answers, a table of them, lmms-eval samples, a VLMEvalKit table.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Write the scored lines here instead of printing them.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of the file's columns, such as prediction=output,answers=labels.")
    ] = None,
    as_json: JsonOption = False,
) -> Told:
    """Score a file of predictions: prints one JSON line per case, then the mean and the count."""

    scores, rows, lines = [], [], []
    for row in stages.score_file(metric, file, stages.named_columns(columns)):
        scores.append(row["score"])
        if as_json:
            rows.append(row)
        if out or not as_json:
            lines.append(json.dumps(row))
    if lines:
        _write_lines(lines, out)
    whole = {"metric": metric, "mean": sum(scores) / len(scores), "count": len(scores)}
    say(json.dumps(whole))
    return Told(lambda: {**whole, "out": out, "rows": rows})


def _align(  # noqa: PLR0913 - one for each option of the commands
    config: RunConfig,
    *,
    only: str | None = None,
    until: str | None = None,
    redo: bool = False,
    then: Callable[["pipeline.Run"], None] | None = None,
    trusts: bool = False,
    details: bool = False,
) -> Told:
    """Runs the pipeline, up to the stage `until` or only the stage `only`, or `then` more, and shows the results."""
    run = pipeline.open_run(config)
    if then:
        run.work(lambda working: _whole(working, then), redo=redo, trusts=trusts)
    else:
        run.upto(only or until, alone=only is not None, redo=redo, trusts=trusts)
    whole = only is None and until is None
    show.show_outcomes(pipeline.plain_console(), run.outcomes, details=details or not whole)
    if "annotate" in (only, until):
        show.show_tables(pipeline.plain_console(), report.question_tables(run.path, list(config.tasks)))
    if whole:
        with trusting_files(trusts):
            show.show_result(pipeline.plain_console(), run.path, list(config.tasks), details=details)

    def record() -> Mapping[str, object]:
        with trusting_files(trusts):
            return records.run_record(run.path, run.outcomes, list(config.tasks))

    return Told(record)


def _whole(run: "pipeline.Run", then: Callable[["pipeline.Run"], None]) -> None:
    for _ in pipeline.align(run):
        pass
    then(run)


def _push(told: Told, run: Path, repo: str | None, *, public: bool) -> Told:
    """Uploads the student, if a repository is named, and tells where."""
    if repo is None:
        return told
    pushed = export.push_student(run, repo, public=public)
    say(f"pushed: {pushed}")
    return Told(lambda: {**told.record(), "pushed": pushed})


def _write_lines(lines: list[str], out: Path | None) -> None:
    if out is None:
        say("\n".join(lines))
    elif not out.parent.is_dir():
        raise UserError(f"cannot write {out}: the folder {out.parent} does not exist")
    else:
        write_whole(out, "".join(f"{line}\n" for line in lines))


_add_stage_commands()
