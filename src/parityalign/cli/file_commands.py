"""The commands that plan and check, that find what models differ in, and that write and read files."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from parityalign import export, pipeline, planning, report, stages, tasks
from parityalign.cli import records, show
from parityalign.cli.commands import command
from parityalign.cli.options import ConfigArgument, DetailsOption, PublicOption, Rule, RunArgument, SetOption, What
from parityalign.cli.run_commands import align
from parityalign.cli.tables import counted
from parityalign.cli.telling import JsonOption, Told
from parityalign.cli.terminal import say
from parityalign.config import IdentifySettings, config_in, load_config
from parityalign.core import Measure, UserError, VerdictKind, write_whole


@command("plan", "plan RUN.yaml", "plan RUN.yaml --device a100-80gb --images 20000 --offline")
def plan_command(  # noqa: PLR0913 - an option is a parameter
    config: ConfigArgument,
    changes: SetOption = None,
    device: Annotated[str | None, typer.Option(help="Plan for this device, such as a100-80gb.")] = None,
    sample: Annotated[int, typer.Option(min=0, help="Pictures to open per task.")] = 32,
    images: Annotated[int | None, typer.Option(min=1, help="Assume so many images per task.")] = None,
    image_size: Annotated[str, typer.Option(help="Picture size in pixels, if none is opened.")] = "1024x768",
    gap_rate: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Assumed share of pairs that the student has wrong. (default: as on the sample, or 0.5)"
        ),
    ] = None,
    benchmark: Annotated[
        bool | None, typer.Option(help="Try local models on the sample. (default: only bundled models)")
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


@command("doctor", "doctor", "doctor RUN.yaml")
def doctor_command(
    config: Annotated[Path | None, typer.Argument(metavar="[RUN.yaml]", help="Also check this run's models.")] = None,
) -> Told:
    """Describe this machine and check whether a run's models would load on it, or answer where they are served.

    No weights are loaded. A served model is asked up to three questions, about two drawn pictures.
    """

    here = planning.inspect_machine()
    checks = planning.examine_models(load_config(config), here) if config else []
    say("\n".join(planning.doctor_lines(here, checks)))
    faulty = any(check.problem or check.fits is False for check in checks)
    return Told(lambda: planning.doctor_record(here, checks), status=int(faulty))


@command(
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
        return align(config_in(run), only="identify")
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


@command("discrepancy", "discrepancy runs/signs --top 20", "discrepancy runs/signs --out gaps.jsonl")
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
        align(config, only="discrepancy")
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


@command("report", "report runs/signs", "report runs/signs --details")
def report_command(run: RunArgument, details: DetailsOption = False) -> Told:
    """Write report.html from what the run has so far."""

    written = report.write_report(run)
    say(f"report: {written}")
    if details:
        show.show_result(pipeline.plain_console(), run, list(config_in(run).tasks), details=True)
    return Told(lambda: {"run": run, "report": written})


@command("export", "export runs/signs --format messages", "export runs/signs --format hf-dataset --push OWNER/NAME")
def export_command(  # noqa: PLR0913 - an option is a parameter
    run: RunArgument,
    form: Annotated[str, typer.Option("--format", help="llava, messages, trl, hf-dataset, evaluation-log ...")],
    what: Annotated[What, typer.Option(help="Export the gaps, or all pairs with verdicts.")] = What.GAPS,
    prompted: Annotated[
        bool,
        typer.Option("--prompted", help="Write questions within the task's answer prompt, as the models saw them."),
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Name pictures by their paths on this machine; copy none.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The folder to write. (default: RUN/exports/FORMAT)")] = None,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Upload it to the hub as a data set (--format hf-dataset)."),
    ] = None,
    public: PublicOption = False,
) -> Told:
    """Export a run's gaps or pairs in a format of other tools; see docs/interchange.md."""

    export.check_pushable(form, push, public=public)
    everything = what == What.ALL
    done = export.export_run(config_in(run), form, everything=everything, prompted=prompted, in_place=in_place, out=out)
    say(f"{'export' if done.made else 'up to date'}: {done.path} ({counted(done.counts)})")
    told: dict[str, object] = {
        "run": run,
        "format": form,
        "folder": done.path,
        "made": done.made,
        "counts": done.counts,
    }
    if push:
        told["pushed"] = export.push_data_set(done.path, push, public=public)
        say(f"pushed: {told['pushed']}")
    return Told(lambda: told)


@command("score", "score anls predictions.jsonl", "score textvqa_accuracy predictions.jsonl --out scored.jsonl")
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


def _write_lines(lines: list[str], out: Path | None) -> None:
    if out is None:
        say("\n".join(lines))
    elif not out.parent.is_dir():
        raise UserError(f"cannot write {out}: the folder {out.parent} does not exist")
    else:
        write_whole(out, "".join(f"{line}\n" for line in lines))
