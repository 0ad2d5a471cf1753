"""What `auto` in `level` comes to, when it is decided, and which rates are refused."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

import families
from makers import mute
from parityalign.config.automatic import HIGHEST, SMALL, TABLE, StudentFacts, decide_level, refuse_high_rate
from parityalign.config.base import results_of
from parityalign.config.loading import Loadings, LoadingSettings
from parityalign.config.run_yaml import as_yaml, config_in, load_config, read_config
from parityalign.config.schema import RunConfig
from parityalign.config.training import AUTOMATIC, LevelSettings, LrMultipliers
from parityalign.core.errors import UserError
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.models.encoding import Prompter
from parityalign.models.loading import open_processor
from parityalign.pipeline import begun, preflight
from parityalign.pipeline.begun import pinned, with_decided, with_pixel_limits
from parityalign.training.facts import facts_of, student_facts
from projects import configure, done, make_project

LARGE = 2_000_000_000
BEFORE_AUTO = {"method": "full", "learning_rate": 2e-4, "epochs": 3, "lr_multipliers": {}}


@pytest.mark.parametrize(
    ("parameters", "said", "method", "rate", "vision", "epochs"),
    [
        (5_000_000, {}, "full", 2e-4, 1, 3),
        (5_000_000, {"method": "lora"}, "lora", 2e-4, 1, 3),
        (507_000_000, {}, "full", 2e-5, 0, 2),
        (938_000_000, {"method": "lora"}, "lora", 1e-4, 0, 2),
        (2_200_000_000, {}, "lora", 1e-4, 0, 2),
        (2_200_000_000, {"method": "full"}, "full", 1e-5, 0, 2),
        (8_300_000_000, {"method": "qlora", "epochs": 1}, "qlora", 1e-4, 0, 1),
        (8_300_000_000, {"learning_rate": 5e-5, "lr_multipliers": {"vision": 0.1}}, "lora", 5e-5, 0.1, 2),
    ],
)
def test_auto_comes_to_the_table_and_leaves_alone_what_is_said(parameters, said, method, rate, vision, epochs):
    level = decide_level(LevelSettings.model_validate(said), StudentFacts(parameters, parts_known=True))
    assert level.decided == (method, rate, LrMultipliers(vision=vision), epochs)
    assert {*level.automatic} == {*AUTOMATIC} - {*said}
    assert decide_level(level, StudentFacts(1, parts_known=True)) == level
    refuse_high_rate(level, StudentFacts(parameters, parts_known=True))


def test_the_page_of_settings_has_the_same_table(request):
    page = (request.config.rootpath / "docs" / "settings.md").read_text()
    limits = "; ".join(plain(HIGHEST[method]) for method in ("full", "lora"))
    for row in TABLE:
        tower = "`vision` 0, others 1" if not row.vision else "1"
        cells = [f"`{row.method}`", plain(row.rates["full"]), plain(row.rates["lora"]), tower, str(row.epochs)]
        assert f"| {' | '.join(cells)} | {limits if row.below > SMALL else ''}" in page
        assert row.rates["lora"] == row.rates["qlora"]


def plain(number: float) -> str:
    return f"{number:f}".rstrip("0")


def test_a_tower_that_cannot_be_told_apart_is_trained_with_the_rest():
    level = decide_level(LevelSettings(), StudentFacts(2_000_000_000, parts_known=False))
    assert level.decided.lr_multipliers == LrMultipliers()


def test_what_is_not_decided_is_no_value():
    assert LevelSettings().undecided == AUTOMATIC
    with pytest.raises(ValueError, match=r"level\.method is auto"):
        LevelSettings().decided  # noqa: B018 - it raises
    assert LevelSettings(max_steps=3).steps(100) == 3


@pytest.mark.parametrize(
    ("parameters", "said", "refused"),
    [
        (507_000_000, {"method": "full", "learning_rate": 2e-4}, True),
        (507_000_000, {"method": "full", "learning_rate": 1e-4}, False),
        (507_000_000, {"method": "full", "learning_rate": 2e-4, "allow_high_rate": True}, False),
        (507_000_000, {"method": "lora", "learning_rate": 2e-4}, False),
        (507_000_000, {"method": "lora", "learning_rate": 2e-3}, True),
        (99_000_000, {"method": "full", "learning_rate": 1e-3}, False),
        # The connector alone at its usual rate, and the tower at a rate of its own.
        (
            8_000_000_000,
            {"method": "full", "learning_rate": 1e-3, "lr_multipliers": {"vision": 0, "language": 0}},
            False,
        ),
        (8_000_000_000, {"method": "full", "learning_rate": 1e-5, "lr_multipliers": {"vision": 100}}, True),
    ],
)
def test_rates_far_above_the_usual_are_refused_by_name(parameters, said, refused):
    facts = StudentFacts(parameters, parts_known=True)
    level = decide_level(LevelSettings.model_validate(said), facts)
    if not refused:
        return refuse_high_rate(level, facts)
    with pytest.raises(UserError, match=r"level\.learning_rate is .*far above the usual") as problem:
        refuse_high_rate(level, facts)
    assert "level.allow_high_rate: true" in str(problem.value)


def test_a_model_is_counted_without_its_weights():
    location = str(EMBEDDED_MODELS / "student")
    model = AutoModelForImageTextToText.from_pretrained(location)
    assert student_facts(location, LoadingSettings()) == (sum(weight.numel() for weight in model.parameters()), True)
    assert facts_of(torch.nn.Linear(2, 3)) == (9, False)


# When it is decided


@pytest.fixture
def large(monkeypatch):
    """The student is one of two billion parameters."""
    monkeypatch.setattr(begun, "_facts", lambda config: StudentFacts(LARGE, parts_known=True))


def settings_of(folder: Path, **level: object) -> RunConfig:
    said = {"run": folder, "teacher": "fake:t", "student": "fake:s", "tasks": {"textvqa": {"images": "pool"}}}
    return RunConfig.model_validate({**said, "level": level})


def test_a_student_that_was_trained_before_there_was_auto_is_not_trained_anew(tmp_path, large):
    now, before = settings_of(tmp_path), settings_of(tmp_path, **BEFORE_AUTO)
    assert with_decided(now, before).level.decided.method == "lora"  # nothing was trained yet
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "manifest.json").touch()
    assert with_decided(now, before) == before
    assert results_of(with_decided(now, before).level) == results_of(before.level)
    more = settings_of(tmp_path, epochs=5)
    assert with_decided(more, before).level.decided == (*decide_level(more.level, large_facts()).decided,)
    own = settings_of(tmp_path, **BEFORE_AUTO | {"learning_rate": 1e-3})
    assert with_decided(now, own).level.decided.method == "lora"  # that was somebody's own choice


def large_facts() -> StudentFacts:
    return StudentFacts(LARGE, parts_known=True)


def test_a_run_goes_on_with_what_it_began_with_until_something_else_is_asked(tmp_path, large, monkeypatch):
    began = with_decided(settings_of(tmp_path), None)
    monkeypatch.setattr(begun, "_facts", lambda config: pytest.fail("was looked up again"))
    assert with_decided(settings_of(tmp_path), began) == with_decided(began, None) == began
    monkeypatch.setattr(begun, "_facts", lambda config: large_facts())
    full = with_decided(settings_of(tmp_path, method="full"), began)
    assert full.level.decided[:2] == ("full", 1e-5) and "method" not in full.level.automatic


def test_the_runs_own_file_and_its_manifest_say_what_auto_came_to(tmp_path, trainable):
    project = make_project(tmp_path)
    assert "level: method full, learning rate 0.0002, 3 epochs" in done("run", project / "run.yaml", "--dry-run")
    done("run", project / "run.yaml", "--until", "level")
    level = config_in(project / "runs" / "a").level
    assert level.decided == decide_level(LevelSettings(), None).decided and level.automatic == AUTOMATIC
    said = json.loads((project / "runs" / "a" / "student" / "manifest.json").read_text())["settings"]
    assert (said["level.method"], said["level.learning_rate"], said["level.epochs"]) == ("full", 2e-4, 3)
    # As the version before there was `auto` wrote it, for students that it trained with the same values.
    assert not {"level.automatic", "level.allow_high_rate", "level.optimiser"} & {*said}
    assert "up to date" in done("level", project / "runs" / "a")
    other = configure(project, level={"optimiser": "adafactor"})
    assert 'level.optimiser ("adafactor") matters now' in done("run", other, "--until", "level")


def test_a_runs_own_file_that_keeps_an_adapter_is_read_again_where_auto_came_to_all_weights(tmp_path):
    began = settings_of(tmp_path, keep_adapter=True)
    decided = began.model_copy(update={"level": decide_level(began.level, None)})
    assert decided.level.method == "full"
    (tmp_path / "run.yaml").write_text(as_yaml(decided, tmp_path), encoding="utf-8")
    assert read_config(tmp_path / "run.yaml").level == decided.level


def test_a_rate_that_is_refused_is_refused_before_anything_is_asked(tmp_path, large):
    level = {"method": "full", "learning_rate": 1e-3}
    config = load_config(configure(make_project(tmp_path), student="embedded:student", level=level))
    with pytest.raises(UserError, match="far above the usual 1e-05"), preflight.open_run_folder(config, mute):
        pass


# Pixels


def with_models(folder: Path, teacher: str, **loading: object) -> RunConfig:
    return settings_of(folder).model_copy(
        update={"teacher": f"hf:{teacher}", "loading": Loadings.model_validate({"teacher": loading})}
    )


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A family that takes pictures of nearly any size, as published: up to 12.8 million pixels."""
    family = next(each for each in families.FAMILIES if each.name == "Qwen2-VL")
    folder = families.write(tmp_path_factory.mktemp("qwen"), family)
    path = folder / "preprocessor_config.json"
    said = json.loads(path.read_text())
    said |= {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}
    path.write_text(json.dumps({key: value for key, value in said.items() if not key.endswith("_pixels")}))
    return str(folder)


def test_a_family_without_a_limit_of_pixels_gets_one_when_a_run_begins(tmp_path, qwen):
    config = with_models(tmp_path, qwen)
    limited = with_pixel_limits(config, None)
    assert limited.loading.teacher.max_pixels == 1280 * 28 * 28
    seen = [
        Prompter(open_processor(qwen, each.loading.teacher)).encode(Image.new("RGB", (4000, 3000)), "what")
        for each in (config, limited)
    ]
    assert len(seen[1].tokens) < 1400 < 14_000 < len(seen[0].tokens)
    assert with_pixel_limits(with_models(tmp_path, qwen, max_pixels=9000), None).loading.teacher.max_pixels == 9000
    own = with_models(tmp_path, str(EMBEDDED_MODELS / "teacher"))
    assert with_pixel_limits(own, None) == own


def test_a_run_that_began_without_a_limit_goes_on_without_one(tmp_path, qwen):
    config = with_models(tmp_path, qwen)
    assert with_pixel_limits(pinned(config, config), config) == config
    limited = with_pixel_limits(config, None)
    assert pinned(config, limited) == limited
    other = with_models(tmp_path, qwen, max_pixels=9000)
    assert pinned(other, limited) == with_pixel_limits(other, limited) == other
