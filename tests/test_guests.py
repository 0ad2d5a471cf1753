"""Parts of another package: skills, benchmarks and metrics work like our own, and any broken part is named in words."""

import textwrap

import pytest

from parityalign.config import IdentifySettings, RunConfig, TaskData
from parityalign.core import Metric, Skill, UserError, has_part, load_part, part_names
from parityalign.core.registry import GROUPS
from parityalign.metrics import find_metric
from parityalign.planning.sampling import SamplingOptions, sample
from parityalign.stages.judging import Given, judge_of
from parityalign.tasks import load_task, task_of
from projects import configure, done, refusal

GOOD = {
    "skills": {
        "bones": """
            from parityalign.core import Skill
            from parityalign.metrics import find_metric
            metric = find_metric("mean_match")
            SKILL = Skill("bones", "Ask about bones.", "{question} Say it.", metric, kinds=("a", "b"))
            """,
    },
    "benchmarks": {
        "atlas": """
            from parityalign.core import Benchmark, Question
            def read_test(folder):
                return [Question(question_id="1", image="a.png", question="Which?", answers=("left",))]
            BENCHMARK = Benchmark("atlas", "bones", read_test, questions=77, subsets={"easy": lambda question: True})
            """,
        "uncounted": """
            from parityalign.core import Benchmark
            BENCHMARK = Benchmark("uncounted", "vqa", lambda folder: [])
            """,
    },
    "metrics": {
        "mean_match": """
            from parityalign.core import Metric, Score
            def mean_match(prediction, references):
                return Score(sum(prediction == each for each in references) / len(references), prediction, "mean")
            METRIC = Metric("mean_match", mean_match)
            """,
        "all_match": """
            from parityalign.core import Metric, Score
            def all_match(prediction, references):
                return Score(float(all(prediction == each for each in references)), prediction, "all")
            METRIC = Metric("all_match", all_match)
            """,
    },
}
IMPORTS = "from parityalign.core import Benchmark, Metric, Skill\nfrom parityalign.metrics import anls, find_metric\n"
BROKEN = [
    ("skills", "", "has to define SKILL, a parityalign.core.Skill, and does not"),
    ("skills", "SKILL = 'ask'", "has to define SKILL, a parityalign.core.Skill, and defines it as 'ask'"),
    ("skills", "SKILL = Metric('x', anls)", "has to define SKILL, a parityalign.core.Skill, and defines it as Metric"),
    ("skills", "SKILL = Skill('x', 'Ask.', '{question}', 'anls')", "metric has to be a Metric"),
    ("skills", "SKILL = Skill('x', 'Ask.', 'Say it.', find_metric('anls'))", "answer_prompt is 'Say it.'"),
    ("skills", "SKILL = Skill('x', None, '{question}', find_metric('anls'))", "annotate_prompt has to be a text"),
    ("skills", "SKILL = Skill('x', 'Ask.', '{question}', find_metric('anl'))", "Did you mean anls"),
    ("skills", "SKILL = Skill('x', 'Ask.')", "cannot be imported: TypeError: "),
    ("skills", "from parityalign.core import Skil", "cannot be imported: ImportError: "),
    ("skills", "SKILL = (", "cannot be imported: SyntaxError: "),
    ("benchmarks", "BENCHMARK = Benchmark", "has to define BENCHMARK, a parityalign.core.Benchmark, and defines it as"),
    ("benchmarks", "BENCHMARK = Benchmark('x', 'textvq', print)", "no skill 'textvq'. Did you mean textvqa"),
    ("benchmarks", "BENCHMARK = Benchmark('x', 'vqa', None)", "read_test has to be a function (folder), and is None"),
    ("metrics", "METRIC = anls", "has to define METRIC, a parityalign.core.Metric, and defines it as <function anls"),
    (
        "metrics",
        "METRIC = Metric('x', None)",
        "score has to be a function (prediction, references), and is None",
    ),
    ("metrics", "METRIC = Metric('x', anls, needs_several=True)", "against_one has to say"),
]


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Installs a package `foreign` that offers parts: {group: {name: the text of its module}}."""

    def install(parts) -> None:
        lines = []
        for group, modules in parts.items():
            lines.append(f"[parityalign.{group}]")
            for name, text in modules.items():
                (tmp_path / f"{tmp_path.name}_{group}_{name}.py").write_text(textwrap.dedent(text))
                lines.append(f"{name} = {tmp_path.name}_{group}_{name}")
        info = tmp_path / "foreign-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)

    return install


def configured(**task) -> RunConfig:
    said = {"run": "a", "teacher": "fake:a.json", "student": "fake:b.json"}
    return RunConfig.model_validate({**said, "tasks": {"theirs": {"images": "pool", **task}}})


def test_parts_of_another_package_are_listed_and_found_like_our_own(offer):
    offer(GOOD)
    for group, modules in GOOD.items():
        assert {*modules} < {*part_names(group)}
    bones, atlas = load_task("bones"), load_task("atlas")
    assert bones.benchmark is None and atlas.benchmark.name == "atlas"
    assert bones.answer_prompt == atlas.answer_prompt == "{question} Say it."
    assert bones.metric.name == atlas.metric.name == "mean_match"
    assert bones.annotate_prompt_for(bones.kind_of(1)) == "Ask about bones. The question should be of this kind: b."


def test_a_configuration_may_name_them(offer):
    offer(GOOD)
    data = configured(skill="bones", benchmark="atlas", metric="all_match", test="release", subset="easy").tasks[
        "theirs"
    ]
    made = task_of("theirs", data)
    assert (made.metric.name, made.benchmark.name, made.kinds) == ("all_match", "atlas", ("a", "b"))


@pytest.mark.parametrize("name", ["mean_match", "all_match"])
def test_on_a_pair_a_metric_is_given_its_one_answer_so_the_very_answer_is_right(offer, name):
    offer(GOOD)
    judge = judge_of(task_of("theirs", TaskData(images="pool", metric=name)), IdentifySettings())

    def verdict(student: str, teacher: str) -> tuple[str, float | None, float | None]:
        found = judge.verdict("p", "tea", Given(student, ""), Given(teacher, ""))
        return found.verdict, found.student_score, found.teacher_score

    assert verdict("tea", "tea") == ("student_right", 1.0, None)
    assert verdict("milk", "tea") == ("teacher_only", 0.0, 1.0)
    assert verdict("milk", "milk") == ("neither", 0.0, 0.0)


def test_a_metric_may_say_how_it_is_used_on_a_single_answer():
    lax = Metric("lax", lambda prediction, references: pytest.fail("was asked"), against_one=lambda *texts: texts)
    assert lax.on_pair("a", "b") == ("a", "b")


@pytest.mark.parametrize(("group", "text", "told"), BROKEN)
def test_a_broken_part_is_one_error_with_its_package_its_name_and_what_was_expected(offer, group, text, told):
    offer({group: {"odd": IMPORTS + text}})
    kind = {"skills": "skill", "benchmarks": "benchmark", "metrics": "metric"}[group]
    with pytest.raises(UserError) as refused:
        task_of("theirs", configured(**{kind: "odd"}).tasks["theirs"])
    message = str(refused.value)
    assert message.startswith(f"the {kind} 'odd' (module ") and told in message
    assert "\n" not in message or "SyntaxError" in message


def test_a_part_that_needs_a_missing_package_says_how_to_install_it(offer):
    offer({"skills": {"needy": "import a_package_that_is_not_there"}})
    with pytest.raises(UserError, match="pip install a_package_that_is_not_there"):
        load_part("skills", "needy", Skill)


def test_a_package_that_is_gone_offers_nothing():
    assert not has_part("skills", "bones")
    with pytest.raises(UserError, match="no metric 'mean_match'"):
        find_metric("mean_match")


# Parts of a run beside its tasks

BESIDE = (
    "from parityalign.core import ExportFormat, PairFilter, Source, SourceKind\n"
    "from parityalign.stages import Stage\n"
    "def works(run, artifact): artifact.finish({})\n"
    "def stage(name='odd', artifact='odd', of=('pairs',), settings=(), work=works, after='annotate', **others):\n"
    "    return Stage(name, artifact=artifact, of=of, settings=settings, work=work, after=after, help='', **others)\n"
)
BROKEN_BESIDE = [
    ("sources", "def open_source(location): ...", "has to define SOURCE, a parityalign.core.SourceKind, and does not"),
    ("sources", "SOURCE = SourceKind('folder')", "open has to be a function (location), and is 'folder'"),
    ("sources", "SOURCE = SourceKind(lambda: 1)", "it defines open(), but it is called as open(location): too many"),
    ("sources", "SOURCE = SourceKind(list, by_name=True)", "opened 3 as ['3']. Expected: a Source."),
    ("filters", "def keep(pair): ...", "has to define FILTER, a parityalign.core.PairFilter, and does not"),
    ("filters", "FILTER = len", "has to define FILTER, a parityalign.core.PairFilter, and defines it as <built-in"),
    ("filters", "FILTER = PairFilter(None)", "keep has to be a function (pair), and is None"),
    (
        "filters",
        "FILTER = PairFilter(check=lambda gaps, teacher: {})",
        "it defines check(gaps, teacher), but it is called as check(gaps, teacher, setting)",
    ),
    (
        "filters",
        "FILTER = PairFilter(lambda pair, task: 1)",
        "it defines keep(pair, task), but it is called as keep(pair)",
    ),
    ("stages", "", "has to define STAGE, a parityalign.stages.Stage, and does not"),
    ("stages", "STAGE = stage(work=None)", "work has to be a function (run, artifact), and is None"),
    ("stages", "STAGE = stage(work=len)", "it defines work(obj), but it is called as work(run, artifact)"),
    ("stages", "STAGE = stage(planned=len)", "it defines planned(obj), but it is called as planned(config, amounts)"),
    ("stages", "STAGE = stage(of='pairs')", "of has to be a tuple of texts, and is 'pairs'"),
    (
        "stages",
        "STAGE = stage(of=('pear',))",
        "is made of 'pear', which no stage before it makes in this run. There are",
    ),
    ("stages", "STAGE = stage(of=('verdicts',))", "is made of 'verdicts', which no stage before it makes"),
    (
        "stages",
        "STAGE = stage(after='level', of=('discrepancy',))",
        "is made of 'discrepancy', which no stage before it makes",
    ),
    ("stages", "STAGE = stage(also_of=lambda config: ['pear'])", "is made of 'pear', which no stage before it makes"),
    ("stages", "STAGE = stage(after='verify')", "it follows 'verify', but the stages are intake, annotate"),
    ("stages", "STAGE = stage(artifact='pairs')", "it makes 'pairs', which another stage makes already"),
    ("stages", "STAGE = stage(artifact='two words')", "the name of an artifact has no space"),
    ("stages", "STAGE = stage(name='even')", "it calls itself 'even', and its command is found by the name 'odd'"),
    (
        "stages",
        "STAGE = stage(settings=('odd.size',))",
        "it depends on the setting 'odd.size', which a run does not have",
    ),
    ("stages", "STAGE = stage(settings=('level.size',))", "it depends on the setting 'level.size', which a run"),
    ("exports", "OF = ('pairs',)", "has to define EXPORT, a parityalign.core.ExportFormat, and does not"),
    ("exports", "EXPORT = ExportFormat(None, ('pairs',))", "write has to be a function (run, folder), and is None"),
    (
        "exports",
        "EXPORT = ExportFormat(len, ('pairs',))",
        "it defines write(obj), but it is called as write(run, folder)",
    ),
    (
        "exports",
        "EXPORT = ExportFormat(print, 'pairs')",
        "of has to be a tuple of artifacts, such as ('pairs', 'verdicts')",
    ),
    (
        "exports",
        "EXPORT = ExportFormat(print, ('pear',))",
        "is made of 'pear', which no stage of this run makes. It makes",
    ),
]


def naming(project, group: str, text: str):
    """What the command line is told where a run has the part `odd` of a group."""
    changes = {
        "sources": {"tasks": {"textvqa": {"images": "odd:3" if "by_name" in text else "odd:teacher.json"}}},
        "filters": {"filters": ["odd"]},
        "stages": {"stages": ["odd"]},
        "exports": {},
    }[group]
    run = configure(project, **changes)
    return ("export", project, "--format", "odd") if group == "exports" else ("run", run)


@pytest.mark.parametrize(("group", "text", "told"), BROKEN_BESIDE)
def test_a_broken_part_beside_the_tasks_is_one_error_before_anything_is_asked(offer, project, group, text, told):
    offer({group: {"odd": BESIDE + text}})
    message = refusal(*naming(project, group, text))
    assert message.startswith(f"parityalign: the {GROUPS[group].word} 'odd' (module ")
    assert "_odd of the package foreign) " in message and told in message
    assert not (project / "runs" / "a" / "pairs").exists()


@pytest.mark.parametrize(
    ("made", "told", "expected"),
    [
        ("lambda pair: True", "gave True for the pair ", "Expected: None"),
        ("among=lambda pairs, setting: []", "gave []. ", "Expected: reasons by pair id"),
    ],
)
def test_a_filter_that_gives_no_reason_is_refused_with_what_it_gave(offer, project, made, told, expected):
    offer({"filters": {"odd": f"{BESIDE}FILTER = PairFilter({made})"}})
    message = refusal("run", configure(project, filters=["odd"]))
    assert f"the filter of pairs 'odd' {told}" in message and expected in message


def test_a_stage_that_does_not_finish_its_artifact_is_refused(offer, project):
    offer({"stages": {"odd": BESIDE + "STAGE = stage(work=lambda run, artifact: None)"}})
    assert "the stage 'odd'" in (told := refusal("run", configure(project, stages=["odd"])))
    assert "ended without finishing its artifact" in told


@pytest.mark.slow
@pytest.mark.parametrize("after", ["annotate", "speed"])
def test_scores_outlast_a_stage_that_they_do_not_hang_on(offer, project, trainable, after):
    offer({"stages": {"odd": BESIDE + f"STAGE = stage(after={after!r})"}})
    run = project / "runs" / "a"
    done("run", configure(project))
    (run / "controls.json").write_text('{"controls": []}')
    done("run", configure(project, stages=["odd"]))
    assert (run / "odd" / "manifest.json").is_file()
    assert (run / "controls.json").is_file() and (run / "scores.json").is_file()
    assert "There are no scores" not in (run / "report.html").read_text()


# What a plan makes of a benchmark that it cannot read


@pytest.mark.parametrize(
    ("benchmark", "limit", "questions", "told"),
    [
        ("atlas", None, 77, "77 questions, as many as are published"),
        ("atlas", 50, 50, "50 questions"),
        ("uncounted", 50, 50, "the size of hf:a/b is unknown"),
        ("uncounted", None, 0, "no question of hf:a/b, since its size is unknown; set `evaluate.limit`"),
        ("textvqa", None, 5000, "5,000 questions, as many as are published"),
    ],
)
def test_a_benchmark_on_the_hub_is_planned_with_its_own_number(offer, benchmark, limit, questions, told):
    offer(GOOD)
    data = TaskData(images="pool", test="hf:a/b", benchmark=benchmark)
    ask = SamplingOptions(pictures=0, images=10)
    found = sample(task_of("theirs", data), data, ask, limit=limit)
    assert found.questions == questions
    assert told in found.assumed[0]
