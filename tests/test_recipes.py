"""The recipes: each can be read, and the figures in its head are what `parityalign plan` computes."""

from pathlib import Path

import pytest

from parityalign.config.loading import LoadingSettings
from parityalign.config.run_yaml import load_config
from parityalign.planning import published
from parityalign.planning.planner import PlanOptions, project_run
from parityalign.planning.projection import summary
from parityalign.planning.sampling import SamplingOptions
from parityalign.planning.sizing import place_of, size_of

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
STUDENTS = ("smolvlm-500m", "tinyllava", "internvl2-2b", "internvl2-4b", "qwen2-vl-2b")
TEACHERS = ("qwen2-vl-7b", "internvl2-8b")


def drafting_layer(hidden: int, heads: int, kept: int, intermediate: int) -> int:
    """Parameters of Qwen3.5's layer that drafts further tokens; heads of 256, queries with gates."""
    attention = hidden * 256 * (3 * heads + 2 * kept) + 2 * 256
    joined, norms = 2 * hidden * hidden, 5 * hidden
    return attention + 3 * hidden * intermediate + joined + norms


WEIGHTS = {
    "HuggingFaceTB/SmolVLM-500M-Instruct": 507_482_304,
    "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen3-VL-2B-Instruct": 2_127_532_032,
    "Qwen/Qwen3-VL-8B-Instruct": 8_767_123_696,
    "Qwen/Qwen3.5-0.8B": 873_438_784,
    "Qwen/Qwen3.5-9B": 9_653_104_368,
    "google/gemma-4-E2B-it": 5_123_178_051,
    "google/gemma-4-31B-it": 31_273_088_876,
    "OpenGVLab/InternVL2-2B": 2_205_754_368,
    "OpenGVLab/InternVL2-8B": 8_075_365_376,
}
"""Parameters as the hub counts them in the published weights."""
BESIDE = {
    "Qwen/Qwen3.5-0.8B": drafting_layer(1024, heads=8, kept=2, intermediate=3584),
    "Qwen/Qwen3.5-9B": drafting_layer(4096, heads=16, kept=4, intermediate=12288),
    # Keys and values of the 20 layers that use those of others (16 with heads of 256, 4 of 512), with the norm of the
    # keys, and a scalar for each layer, which is no parameter.
    "google/gemma-4-E2B-it": 16 * (2 * 1536 * 256 + 256) + 4 * (2 * 1536 * 512 + 512) + 35,
    # Such scalars, and what the tower's features are standardised with.
    "google/gemma-4-31B-it": 60 + 2 * 1152,
}
"""What the hub counts besides: weights that transformers does not load, and numbers that are not trained."""
FILE_BYTES = {"bczhou/tiny-llava-v1-hf": (4.98e9 + 0.661e9, 4), "OpenGVLab/InternVL2-4B": (4.96e9 + 3.34e9, 2)}
"""Where no such count was found: bytes of the published weights, and of each number."""


ALWAYS = "smolvlm-500m_under_qwen2-vl-7b"
"""The recipe whose figures are computed each time: what changes one plan changes most."""


def headed(recipe: Path) -> list[str]:
    return [line.removeprefix("#").strip() for line in recipe.read_text().splitlines() if line.startswith("#")]


def test_every_pair_of_the_paper_has_a_recipe_and_three_pairs_of_today_have():
    names = {recipe.stem for recipe in RECIPES}
    paper = {f"{student}_under_{teacher}" for student in STUDENTS for teacher in TEACHERS}
    assert paper <= names
    today = ("qwen3.5-0.8b_under_qwen3.5-9b", "gemma-4-e2b_under_gemma-4-31b", "qwen3-vl-2b_under_qwen3-vl-8b")
    assert names >= {*today}


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(each, marks=[] if each.stem == ALWAYS else pytest.mark.long) for each in RECIPES],
    ids=lambda recipe: recipe.stem,
)
def test_the_figures_in_the_head_of_a_recipe_are_what_plan_computes(recipe):
    config = load_config(recipe)
    assert set(config.tasks) == {"textvqa", "stvqa", "chartqa", "okvqa"}
    ask = SamplingOptions(pictures=0, size=(1024, 768), images=8000, offline=True)
    plan = project_run(config, PlanOptions(ask, device="a100-80gb"))
    assert not plan.problems
    missing = [line for line in summary(plan) if line not in headed(recipe)]
    assert not missing, f"write into the head of {recipe.name}: {summary(plan)}"
    command = f"parityalign plan recipes/{recipe.name} \\ --offline --device a100-80gb --images 8000 --sample 0"
    assert command in " ".join(headed(recipe))


@pytest.mark.parametrize("name", WEIGHTS)
def test_published_architectures_have_as_many_parameters_as_the_published_weights(name):
    assert counted(name) + BESIDE.get(name, 0) == WEIGHTS[name]


@pytest.mark.parametrize("name", FILE_BYTES)
def test_published_architectures_are_as_large_as_the_published_files(name):
    size, number = FILE_BYTES[name]
    assert counted(name) == pytest.approx(size / number, rel=0.003)


def test_every_model_of_the_recipes_has_a_published_architecture():
    for recipe in RECIPES:
        config = load_config(recipe)
        for spec in (config.teacher, config.student):
            assert published.architecture(spec.removeprefix("hf:")), spec


def counted(name: str) -> int:
    loading = LoadingSettings()
    return size_of(place_of(name, loading, offline=True), loading).parameters
