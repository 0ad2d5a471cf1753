"""A configuration is refused as a whole, with every problem, where it stands and what to write instead."""

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import yaml
from pydantic import WrapSerializer
from pydantic.fields import FieldInfo

from parityalign.config.base import Settings, results_of, speed_only
from parityalign.config.run_yaml import REMOVED, as_yaml, load_config
from parityalign.config.schema import (
    AnnotateSettings,
    DiscrepancySettings,
    EvaluateSettings,
    IdentifySettings,
    PairsFile,
    RunConfig,
    TaskData,
)
from parityalign.config.training import LevelSettings
from parityalign.core.errors import UserError

SHIPPED = sorted(Path(__file__).parent.parent.glob("src/parityalign/demo/*.yaml"))


@pytest.fixture
def folder(tmp_path):
    """A folder with a pool and a test split, where configurations are written."""
    for name in ("pool", "bench"):
        (tmp_path / name).mkdir()
    return tmp_path


def good(**changes) -> dict[str, object]:
    return {
        "run": "runs/a",
        "teacher": "hf:some/teacher",
        "student": "hf:./student",
        "tasks": {"textvqa": {"images": "pool", "test": "bench"}},
        **changes,
    }


def load(folder: Path, content: object) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_config(path)


def refusal(folder: Path, content: object) -> str:
    with pytest.raises(UserError) as refused:
        load(folder, content)
    assert refused.value.exit_status == 2
    return str(refused.value)


def test_a_folder_instead_of_a_file_is_told_what_to_name(tmp_path):
    with pytest.raises(UserError, match="is a folder; name the configuration in it"):
        load_config(tmp_path)


def test_paths_are_relative_to_the_file_and_made_absolute(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    (folder / "run.yaml").write_text(yaml.safe_dump(good()))
    config = load_config(Path("../run.yaml"))
    assert config.run == folder / "runs" / "a"
    assert config.tasks["textvqa"].images == (str(folder / "pool"),)
    assert config.tasks["textvqa"].test == str(folder / "bench")
    assert config.student == f"hf:{folder / 'student'}"
    assert config.teacher == "hf:some/teacher"


def test_what_is_not_said_has_the_documented_default(folder):
    config = load(folder, good())
    assert (config.seed, config.identify.rule, config.level.replay) == (0, "judge", None)
    assert config.level.max_steps is None


def test_a_model_folder_beside_the_file_is_found_without_dots(folder):
    (folder / "mine").mkdir()
    assert load(folder, good(student="hf:mine")).student == f"hf:{folder / 'mine'}"


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_numbers_have_to_be_finite(folder, number):
    level = {"learning_rate": number, "lr_multipliers": {"vision": number}}
    text = refusal(folder, good(level=level, annotate={"temperature": number}, server={"timeout": number}))
    assert "4 problems\n" in text
    for key in ("level.learning_rate", "level.lr_multipliers.vision", "annotate.temperature", "server.timeout"):
        assert f"'{key}' is {number}: input should be a finite number" in text


@pytest.mark.parametrize("weight", [float("inf"), [1, float("nan")], -1, "much", [1, 2, 3]])
def test_a_wrong_weight_of_an_objective_is_told_once_with_what_to_write(folder, weight):
    text = refusal(folder, good(level={"objective": {"answer": weight}}))
    assert "1 problem\n" in text
    assert f"'level.objective.answer': {weight!r} is not a weight; write a finite number, 0 or more" in text


@pytest.mark.parametrize(
    ("said", "weights", "own"),
    [
        ({"confidence": {"weight": [1, 0.5], "divergence": "reverse"}}, (1, 0.5), {"divergence": "reverse"}),
        ({"confidence": {"divergence": "reverse"}}, (1, 1), {"divergence": "reverse"}),
    ],
)
def test_a_term_may_have_settings_of_its_own_beside_its_weight(folder, said, weights, own):
    config = load(folder, good(level={"objective": {"answer": 1, **said}}))
    assert config.level.weights == {"answer": (1, 1), "confidence": weights}
    assert config.level.own_settings == {"confidence": own}
    config.run.mkdir(parents=True)
    (config.run / "run.yaml").write_text(as_yaml(config, config.run))
    assert load_config(config.run / "run.yaml") == config


def test_a_term_with_no_settings_but_its_weight_is_the_term_with_that_weight(folder):
    plain, spelt = (load(folder, good(level={"objective": {"answer": said}})) for said in (2, {"weight": 2}))
    assert plain == spelt


def test_settings_beside_a_wrong_weight_or_beside_the_preset_are_refused(folder):
    said = refusal(folder, good(level={"objective": {"confidence": {"weight": -1, "divergence": "reverse"}}}))
    assert "1 problem\n" in said and "is not a weight; write a finite number, 0 or more" in said
    said = refusal(folder, good(level={"objective": {"discrepancy": {"divergence": "reverse"}}}))
    assert "discrepancy is a preset and takes no other terms or settings" in said


def test_settings_that_only_change_speed_are_marked():
    for section in (AnnotateSettings, IdentifySettings, EvaluateSettings):
        assert speed_only(section) == {"batch_size"}
    assert speed_only(DiscrepancySettings) == {"always", "batch_size"}
    speed = {"micro_batch_size", "processes", "gradient_checkpointing", "compile", "liger"}
    assert speed_only(LevelSettings) == {*speed, "allow_high_rate", "automatic", "report_to", "sharded"}


def test_a_run_has_to_have_a_task(folder):
    assert "'tasks'" in refusal(folder, good(tasks={}))


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("mine.jsonl", "{folder}/mine.jsonl"),
        ("hf:lmms-lab/textvqa:validation", "hf:lmms-lab/textvqa:validation"),
        ("hf:./bench:validation", "hf:{folder}/bench:validation"),
        ("hf:bench", "hf:{folder}/bench"),
    ],
)
def test_a_test_split_may_be_a_file_or_a_hugging_face_copy(folder, said, read):
    (folder / "mine.jsonl").write_text("{}")
    config = load(folder, good(tasks={"textvqa": {"images": "pool", "test": said}}))
    assert config.tasks["textvqa"].test == read.format(folder=folder)
    config.run.mkdir(parents=True)
    (config.run / "run.yaml").write_text(as_yaml(config, config.run))
    assert load_config(config.run / "run.yaml") == config
    assert str(folder) not in as_yaml(config, config.run)


def test_what_is_scored_and_how_can_be_chosen_for_each_task(folder):
    text = refusal(
        folder,
        good(
            tasks={
                "textvqa": {"images": "pool", "metric": "anl", "missing": 1.5},
                "okvqa": {"images": "pool", "test": "hf:a/b", "metrics": "anls"},
            }
        ),
    )
    assert "'tasks.textvqa.metric': there is no metric 'anl'. Did you mean anls?" in text
    assert "'tasks.textvqa.missing' is 1.5" in text and "Did you mean metric?" in text
    text = refusal(folder, good(tasks={"chartqa": {"images": "pool", "subset": "humans"}}))
    assert "chartqa has no subset 'humans'. Did you mean human?" in text
    assert "textvqa has no subset" in refusal(folder, good(tasks={"textvqa": {"images": "pool", "subset": "a"}}))


def test_a_test_file_that_does_not_exist_is_named(folder):
    text = refusal(folder, good(tasks={"textvqa": {"images": "pool", "test": "mine.jsonl"}}))
    assert f"'tasks.textvqa.test' is {folder / 'mine.jsonl'}, which does not exist" in text


def test_a_test_split_is_optional(folder):
    assert load(folder, good(tasks={"textvqa": {"images": "pool"}})).tasks["textvqa"].test is None


def test_all_problems_of_form_are_listed_at_once(folder):
    text = refusal(
        folder,
        good(level={"epoch": 3, "replay": 1.0}, identify={"rule": "papre"}, sede=1, teacher=None),
    )
    assert "5 problems" in text
    assert "unknown setting 'level.epoch'. Did you mean epochs?" in text
    assert "'level.replay' is 1.0" in text
    assert "'identify.rule' is 'papre'" in text
    assert "unknown setting 'sede'. Did you mean seed" in text
    assert "'teacher' is None" in text


def test_a_threshold_belongs_to_the_metric_alone(folder):
    assert load(folder, good(identify={"rule": "metric", "threshold": 0.8})).identify.threshold == 0.8
    assert "the judge has none. Set `rule: metric`" in refusal(folder, good(identify={"threshold": 0.8}))


def test_problems_of_form_and_of_content_are_listed_together(folder):
    text = refusal(
        folder,
        good(
            teacher="hff:some/teacher",
            tasks={"textqva": {"images": "pool"}, "okvqa": {"images": "pol"}},
            level={"objective": "anser"},
            annotate={"temperature": 0, "pairs_per_image": 4},
            evaluate={"limits": 7},
        ),
    )
    assert "6 problems" in text
    assert "'teacher': there is no kind of model 'hff'" in text
    assert "there is no task 'textqva'. Did you mean textvqa" in text
    assert "no term of the loss 'anser'. Did you mean answer" in text
    assert f"'tasks.okvqa.images' is {folder / 'pol'}, which does not exist" in text
    assert "at temperature 0 every draw writes the same pair" in text
    assert "unknown setting 'evaluate.limits'. Did you mean limit?" in text


def test_an_unknown_key_of_a_task_is_answered_with_the_near_one(folder):
    text = refusal(folder, good(tasks={"textvqa": {"images": "pool", "tests": "bench"}}))
    assert "unknown setting 'tasks.textvqa.tests'. Did you mean test?" in text


def test_a_file_in_the_place_of_an_image_folder_is_refused(folder):
    (folder / "list.csv").write_text("a.png")
    text = refusal(folder, good(tasks={"textvqa": {"images": "list.csv"}}))
    assert "is not a folder, and its suffix is not one of .jsonl, .parquet, .tar, .txt" in text


@pytest.mark.parametrize(
    "changes",
    [{"run": "pool/runs"}, {"tasks": {"textvqa": {"images": "pool", "test": "pool/test"}}}],
)
def test_a_folder_inside_the_images_is_refused(folder, changes):
    (folder / "pool" / "test").mkdir()
    assert "would be taken for unlabelled images" in refusal(folder, good(**changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run: [", "is not YAML"),
        ("- a\n- b\n", "should hold a mapping of settings (run, teacher, ...), but holds list"),
        ("", "should hold a mapping of settings"),
        ("seed: 1\nseed: 2\n", "'seed' is given twice"),
        ("level:\n  epochs: 1\n  epochs: 2\n", "'epochs' is given twice"),
        ("\x00", "is not YAML"),
        ("!!timestamp run: runs/a\n", "the tag 'tag:yaml.org,2002:timestamp' has no use here"),
        ("seed: !!int many\n", "the tag 'tag:yaml.org,2002:int'"),
        ("seed: !!python/object/apply:os.getcwd []\n", "the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd'"),
        ("- !mine [a]\n", "the tag '!mine'"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(folder, content, message):
    assert message in refusal(folder, content)


def test_a_missing_file_is_named(folder):
    with pytest.raises(UserError, match=r"cannot read the configuration .*nowhere\.yaml: No such file"):
        load_config(folder / "nowhere.yaml")


def test_the_resolved_configuration_reads_back_the_same_from_the_run_folder(folder):
    config = load(folder, good(level={"learning_rate": "1e-5"}))
    config.run.mkdir(parents=True)
    text = as_yaml(config, config.run)
    assert str(folder) not in text
    (config.run / "run.yaml").write_text(text)
    assert load_config(config.run / "run.yaml") == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_configuration_has_the_right_form(path):
    RunConfig.model_validate(yaml.safe_load(path.read_text()))


def settings_below(part: type[Settings]) -> Iterator[tuple[str, FieldInfo]]:
    """The settings of a part of the configuration and of the parts in it."""
    for name, field in part.model_fields.items():
        section = field.annotation if is_section(field.annotation) else None
        if type(None) in get_args(field.annotation):  # a section that may be `auto` is a setting too
            section = next(filter(is_section, get_args(field.annotation)), None)
            yield name, field
        elif not section:
            yield name, field
        if section:
            yield from settings_below(section)


def is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def test_the_page_of_settings_has_each_with_its_default():
    page = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
    for name, field in (*settings_below(RunConfig), *settings_below(TaskData), *settings_below(PairsFile)):
        default = None if field.is_required() else json.dumps(field.default).strip('"')
        auto = any(isinstance(each, WrapSerializer) for each in field.metadata)
        shown = "`auto`" if auto else "required" if default is None else "none" if default == "null" else f"`{default}`"
        assert f"| `{name}` | {shown} |" in page, name


def test_an_unknown_key_two_levels_down_is_answered_with_the_near_one(folder):
    text = refusal(folder, good(loading={"student": {"dtpe": "float16"}, "techer": {}}))
    assert "unknown setting 'loading.student.dtpe'. Did you mean dtype?" in text
    assert "unknown setting 'loading.techer'. Did you mean teacher" in text


@pytest.mark.parametrize("name", REMOVED)
def test_a_setting_of_an_earlier_version_is_refused_with_what_became_of_it(folder, name):
    said: object = 1
    for key in reversed(name.split(".")):
        said = {key: said}
    text = refusal(folder, {**good(sede=1), **said})
    assert "2 problems\n" in text
    assert f"  - {name!r} {REMOVED[name]}" in text
    assert "unknown setting 'sede'. Did you mean seed" in text


def test_rounds_of_levelling_were_removed_since_they_did_harm(folder):
    text = refusal(folder, good(level={"rounds": 2}))
    assert "'level.rounds' was removed: two rounds scored 2.7 points below one" in text and "Delete the line" in text


def test_how_many_processes_there_are_is_a_number_or_auto_and_no_result_hangs_on_it(folder):
    loading = {"student": {"replicas": 2}, "teacher": {"replicas": "auto"}}
    several = load(folder, good(loading=loading, level={"processes": 3}))
    assert (several.loading.student.replicas, several.loading.teacher.replicas, several.level.processes) == (2, None, 3)
    plain = load(folder, good())
    assert results_of(several.level) == results_of(plain.level)
    assert several.loading.student.numbers() == plain.loading.student.numbers()
    for wrong in (0, 5000, "many"):
        assert "'level.processes'" in refusal(folder, good(level={"processes": wrong}))
    spread = {"student": {"replicas": 2, "device_map": "auto"}}
    assert "spreads one copy of the model over all GPUs" in refusal(folder, good(loading=spread))


def test_a_section_that_may_be_left_out_is_had_with_its_defaults_by_true(folder):
    by_true = load(folder, good(ray=True, server={"batch": True}))
    assert by_true == load(folder, good(ray={}, server={"batch": {}}))
    assert by_true.ray is not None and by_true.server.batch is not None
    assert load(folder, good(ray=False, server={"batch": False})) == load(folder, good())


@pytest.mark.parametrize("term", ["reasoning", "coherence"])
def test_rationales_are_asked_for_where_a_term_needs_them(folder, term):
    config = load(folder, good(level={"objective": {"answer": 1, term: 1}}))
    assert config.wants_rationales
    assert config.wants_discrepancy
    assert not load(folder, good()).wants_rationales
    asked = load(folder, good(discrepancy={"rationales": True}))
    assert asked.wants_rationales and asked.wants_discrepancy


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        ({"level": {"objective": {"answer": 1, "attention": 1}}}, "level.objective has the term 'attention'"),
        ({"level": {"objective": "confidence"}}, "level.objective has the term 'confidence'"),
        ({"discrepancy": {"weight_by": "confidence_gap"}}, "discrepancy.weight_by is confidence_gap"),
    ],
)
def test_what_a_served_teacher_can_never_show_is_refused_before_it_is_asked_anything(folder, said, lacking):
    problem = refusal(folder, good(teacher="http://localhost:1/v1#large", **said))
    assert f"{lacking}, but the teacher http://localhost:1/v1#large gives only text" in problem
    assert "Leave that out" in problem


@pytest.mark.parametrize("objective", ["discrepancy", {"answer": 1, "reasoning": 1, "consistency": 1, "coherence": 1}])
def test_what_a_served_teacher_can_say_is_taken(folder, objective):
    assert load(folder, good(teacher="http://localhost:1/v1#large", level={"objective": objective})).wants_rationales


LIMITS = {
    "seed": (0, 2**32 - 1),
    "annotate.max_new_tokens": (1, 2**53),
    "level.epochs": (1, 2**53),
    "level.lora_rank": (1, 65536),
    "evaluate.resamples": (100, 1_000_000),
    "server.budget_tokens": (1, 2**53),
}


@pytest.mark.parametrize("key", LIMITS)
def test_whole_numbers_that_would_fail_late_are_refused_at_once(folder, key):
    section, _, name = key.rpartition(".")

    def said(number: int) -> dict[str, object]:
        return good(**({section: {name: number}} if section else {name: number}))

    for allowed in LIMITS[key]:
        load(folder, said(allowed))
    for refused in (LIMITS[key][1] + 1, LIMITS[key][0] - 1, 2**64, 10**4200):
        assert f"'{key}'" in refusal(folder, said(refused)) or refused > 2**53


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: 0x" + "f" * 5000, "larger than any setting takes"),
        ("seed: 1" + "0" * 5000, "is not YAML"),
        ("a: " + "[" * 5000, "is nested too deeply"),
        ("".join(f"{key}: &{key} [{', '.join(['*' + below] * 9)}]\n" for below, key in pairwise("abcdefghijkl")), "a"),
    ],
)
def test_a_hostile_file_is_one_short_message(folder, content, message):
    first = "a: &a [x]\n" if content.startswith("b") else ""
    said = refusal(folder, first + content + "\nlevel: *l" if first else content)
    assert message in said and len(said) < 5000


def test_a_project_in_a_folder_whose_name_is_not_utf8_is_refused_in_words(folder):
    odd = folder / os.fsdecode(b"caf\xe9")
    for name in ("pool", "bench"):
        (odd / name).mkdir(parents=True)
    said = refusal(odd, good())
    for key in ("run", "student", "tasks.textvqa.test", "tasks.textvqa.images"):
        assert rf"'{key}' is " in said
    assert r"caf\xe9/bench, whose name is not UTF-8. Rename the folder" in said
