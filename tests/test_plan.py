"""Planning: what is counted equals what the models do, more never costs less, and what is assumed is said."""

import json
import re
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import pyarrow
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, LlamaConfig, LlamaModel

import tiny
from makers import draw, speckle
from parityalign.config.automatic import decide_level
from parityalign.config.backend import Backend
from parityalign.config.loading import LoadingSettings
from parityalign.config.run_yaml import load_config
from parityalign.config.schema import EvaluateSettings, RunConfig
from parityalign.config.serving import ServerSettings
from parityalign.config.training import LevelSettings, LrMultipliers
from parityalign.core.errors import UserError
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.core.records import Judged, Pair, Verdict, VerdictKind
from parityalign.data import hf_datasets
from parityalign.data.open import open_source
from parityalign.data.sources import hf as hub_source
from parityalign.models.backends import fake
from parityalign.models.encoding import Prompter, read_image
from parityalign.models.features import KEPT_BYTES
from parityalign.models.limits import cached_numbers
from parityalign.models.loading import open_model, open_processor
from parityalign.planning import costs, planner, published, sampling, sizing
from parityalign.planning.fitting import problems
from parityalign.planning.planner import PlanOptions
from parityalign.planning.planner import project_run as projected
from parityalign.planning.sampling import SamplingOptions, size_of_picture
from parityalign.planning.sharing import asking, levelling
from parityalign.planning.sizes import ModelFacts, Preparation, Prompts, PromptSize, PromptSizes, Size, Stack
from parityalign.planning.sizing import CHAT_TOKENS, place_of, prompt_sizes_of, size_of
from parityalign.planning.trial import QUESTION
from parityalign.planning.works import Counts, Shares, Workload, workloads
from parityalign.stages.forgotten import previously_right
from parityalign.stages.level import choice_counts, choose_pairs
from parityalign.tasks import load_task
from parityalign.training.student import add_lora
from projects import configure, done, refusal

AS_IT_IS = LoadingSettings()
SIZES = [(40, 40), (64, 32), (96, 128)]
NOT_MEASURED = PlanOptions(benchmark=False)


@pytest.fixture
def pool(tmp_path) -> Path:
    for number, size in enumerate(SIZES * 2):
        speckle(tmp_path / "pool" / f"{number}.png", seed=number, size=size)
    return tmp_path


def configured(folder: Path, **changes) -> Path:
    said = {
        "run": "runs/a",
        "teacher": "embedded:teacher",
        "student": "embedded:student",
        "tasks": {"textvqa": {"images": "pool"}},
        **changes,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(said))
    return folder / "run.yaml"


@pytest.mark.slow
def test_prompt_tokens_of_the_embedded_models_are_what_their_processors_give(pool):
    config = load_config(configured(pool, annotate={"pairs_per_image": 3}))
    rows = {(row.stage, row.model): row for row in projected(config, NOT_MEASURED).rows}
    task = load_task("textvqa", kinds=False)
    for role, stage, prompt, times in (
        ("teacher", "annotate", task.annotate_prompt, 3),
        ("student", "identify", task.answer_prompt.format(question=QUESTION), 3),
    ):
        prompter = Prompter(open_processor(str(EMBEDDED_MODELS / role)))
        images = [read_image(str(path)) for path in sorted((pool / "pool").iterdir())]
        assert rows[stage, role].prompt_tokens == times * sum(len(prompter.encode(i, prompt).tokens) for i in images)


@pytest.mark.parametrize("make", [tiny.llava, tiny.fast_vlm])
def test_parameters_and_those_of_adapters_are_counted_as_the_loaded_model_has_them(tmp_path, make):
    folder = str(make(tmp_path / "model"))
    size = size_of(place_of(folder, AS_IT_IS), AS_IT_IS)
    model = open_model(folder)
    assert size.parameters == sum(weight.numel() for weight in model.parameters())
    text = model.config.get_text_config()
    assert size.head == size.vocabulary * text.hidden_size
    assert (
        size.cached
        == 2 * text.num_hidden_layers * text.num_key_value_heads * text.hidden_size // text.num_attention_heads
    )
    adapted = add_lora(model, 3)
    learns = {name: weight.numel() for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert sum(learns.values()) == 3 * size.adapter
    assert sum(count for name, count in learns.items() if "vision_tower" in name) == 3 * size.tower_adapter


def test_layers_whose_heads_differ_keep_as_many_numbers_as_their_cache_holds():
    kinds = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 64, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 16}
    tables = {"vocab_size": 40, "vocab_size_per_layer_input": 40, "hidden_size_per_layer_input": 4}
    text = Gemma4TextConfig(hidden_size=32, intermediate_size=32, pad_token_id=0, **kinds, **heads, **tables)
    with torch.no_grad():
        cache = Gemma4ForCausalLM(text)(torch.arange(1, 11)[None], use_cache=True).past_key_values
    assert sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) == 10 * cached_numbers(text)


@pytest.mark.slow
def test_a_plan_counts_what_a_picture_passes_in_gemma_4_and_no_tables_and_no_sounds():
    name = "google/gemma-4-E2B-it"
    size = published_size(name)
    tables, sounds = 262_144 * 35 * 256, 304_824_608 + 2_359_296
    passed = size.language.parameters + size.vision.parameters + size.head
    assert passed + tables + sounds == size.parameters
    prompts = Prompts(annotate="", answer="", rationale="")
    picture = Image.new("RGB", (1024, 768))
    seen = prompt_sizes_of(place_of(name, AS_IT_IS, offline=True), AS_IT_IS, [picture], prompts).annotate
    assert (seen.tokens, seen.patches) == (280 + CHAT_TOKENS, 9 * 280)


def test_a_plan_for_a_gpu_counts_pictures_that_are_cut_there_and_not_by_the_processor():
    name = "HuggingFaceTB/SmolVLM-500M-Instruct"
    place, picture = place_of(name, AS_IT_IS, offline=True), Image.new("RGB", (640, 480))
    prompts = Prompts(annotate="", answer="", rationale="")
    here, there = (prompt_sizes_of(place, AS_IT_IS, [picture], prompts, on_gpu=gpu) for gpu in (False, True))
    assert here.annotate == there.annotate
    assert here.preparation.file_bytes == here.preparation.memory_bytes > 13 * 3 * 512 * 512
    assert (there.preparation.memory_bytes, there.preparation.file_bytes) == (3 * 640 * 480, 0)


def test_no_weight_is_needed(tmp_path):
    folder = tiny.llava(tmp_path / "model")
    with_weights = size_of(place_of(str(folder), AS_IT_IS), AS_IT_IS)
    for path in published.models():
        assert not [*path.glob("*.safetensors")]
    assert with_weights.origin == "its folder"


def pairs_with_verdicts(count: int, gaps: int) -> list[Judged]:
    pairs = [
        Pair(
            pair_id=str(i), image_id=str(i), image=f"{i}.png", task="t", question="q", answer="a", teacher="fake:t.json"
        )
        for i in range(count)
    ]
    kinds = [VerdictKind.TEACHER_ONLY if i < gaps else VerdictKind.STUDENT_RIGHT for i in range(count)]
    verdicts = [Verdict(pair_id=str(i), verdict=kind, reason="") for i, kind in enumerate(kinds)]
    return [*map(Judged, pairs, verdicts)]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 60).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count))),
    st.sampled_from(["gaps", "all", "random", "auto"]),
    st.sampled_from([0.0, 0.25, 0.5]),
)
def test_as_many_pairs_are_trained_on_as_level_chooses(counts, select, replay):
    count, gaps = counts
    level = LevelSettings(select=select, replay=replay, held_out=0.1)
    found = choice_counts(count, gaps, level)
    made = choose_pairs(pairs_with_verdicts(count, gaps), level, seed=0)
    assert abs(found.held_out - len(made.held_out)) <= 1  # level holds out an image at least
    # How many of the held-out images have a gap is chance.
    chance = 1 + len(made.held_out)
    assert abs(found.training - len(made.training)) <= 2 * chance
    assert abs(found.replayed - made.replayed) <= chance


@settings(max_examples=40)
@given(
    st.integers(100, 400), st.floats(0.1, 0.9), st.sampled_from(["gaps", "all", "random"]), st.sampled_from([0, 0.5])
)
def test_about_as_many_pairs_are_asked_again_as_the_student_knew_untrained(count, wrong, select, replay):
    level, gaps = LevelSettings(select=select, replay=replay, held_out=0.1), round(count * wrong)
    judged = pairs_with_verdicts(count, gaps)
    trained = {pair.pair_id for pair in choose_pairs(judged, level, seed=0).training}
    known = previously_right(judged, trained, settings=EvaluateSettings(), seed=0)
    assert choice_counts(count, gaps, level).known_untrained == pytest.approx(len(known), abs=0.08 * count)


@pytest.mark.parametrize(("hidden", "inner"), [(256, 768), (256, 2048), (512, 512)])
def test_what_training_keeps_of_a_token_is_about_what_torch_keeps(hidden, inner):
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=3, num_attention_heads=8, vocab_size=64
    )
    model = LlamaModel(config)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or pack(t), lambda t: t):
        held.append(model(torch.randint(0, 64, (2, 128))))
    stack = Stack(0, 3, hidden, inner)
    mode = costs.TrainingMode("full", False, 1, bf16=False, tower=True, language=True)
    assert costs._kept(stack, mode) == pytest.approx(sum(kept.values()) / 4 / 256, rel=0.2)


READING = PromptSizes(PromptSize(1000.0, 4000.0), PromptSize(900.5, 4000.0), PromptSize(930.5, 4000.0), 1)
READINGS = {"teacher": {"textvqa": READING}, "student": {"textvqa": READING}}


def run_of(**changes) -> RunConfig:
    models = {"teacher": "hf:Qwen/Qwen2-VL-7B-Instruct", "student": "hf:Qwen/Qwen2-VL-2B-Instruct"}
    config = RunConfig(**{"run": "a", "tasks": {"textvqa": {"images": "pool"}}, **models, **changes})
    return config.model_copy(update={"level": decide_level(config.level, None)})


@cache
def published_size(name: str) -> Size:
    return size_of(place_of(name, AS_IT_IS, offline=True), AS_IT_IS)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(
    images=st.integers(0, 3000),
    more=st.integers(0, 3000),
    gap_rate=st.floats(0, 1),
    draws=st.integers(1, 4),
    replay=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    select=st.sampled_from(["gaps", "all", "random"]),
    method=st.sampled_from(["full", "lora"]),
)
def test_more_images_never_cost_less(images, more, gap_rate, draws, replay, select, method):
    config = run_of(annotate={"pairs_per_image": draws}, level={"replay": replay, "select": select, "method": method})
    server, device = ServerSettings(prompt_price=1, completion_price=2), published.device("a100-80gb")
    sizes = {role: published_size(getattr(config, role).removeprefix("hf:")) for role in READINGS}

    def costs_of(count: int) -> dict[tuple[str, str], tuple[float, ...]]:
        found = workloads(config, {"textvqa": Counts(count, 10)}, READINGS, {"textvqa": Shares.assumed(gap_rate)})
        return {
            (work.stage, work.role): (work.requests, work.tokens, seconds(work), costs.money(work, server))
            for work in found
        }

    def seconds(work) -> float:
        if not work.requests:
            return 0.0
        if work.steps:
            mode = costs.training_mode(config.level, device, work, sizes["student"])
            return costs.levelling_seconds(work, sizes["student"], mode, device)
        return costs.asking_seconds(work, sizes[work.role], AS_IT_IS, device)

    larger = costs_of(images + more)
    for name, fewer in costs_of(images).items():
        assert all(a <= b * (1 + 1e-9) for a, b in zip(fewer, larger[name], strict=True)), name


def planned(**changes) -> dict[tuple[str, str], Workload]:
    """What is to be done with 100 images, by stage and model."""
    found = workloads(run_of(**changes), {"textvqa": Counts(100, 10)}, READINGS, {"textvqa": Shares.assumed(0.5)})
    return {(work.stage, work.role): work for work in found}


@pytest.mark.slow
def test_a_run_asks_as_often_as_its_plan_says(project, trainable, monkeypatch):
    monkeypatch.setattr(fake, "BACKEND", Backend(load=fake.load, shows=True))  # its stage is gone through all the same
    discrepancy = {"always": True, "rationales": True}
    changed = {"level": {"replay": 0.0}, "evaluate": {"limit": 5}}
    config = configure(project, discrepancy=discrepancy, **changed)
    rows = {(row.stage, row.model): row.requests for row in projected(load_config(config), NOT_MEASURED).rows}
    said = dict(re.findall(r"^(.+): \d+ of (\d+)", done("run", config), re.MULTILINE))
    asked = {
        "annotate textvqa": rows["annotate", "teacher"],
        "identify student": rows["identify", "student"],
        "discrepancy rationales": rows["discrepancy rationales", "teacher"],
        "evaluate before": rows["evaluate before", "student"],
        "evaluate forgotten": rows["evaluate forgotten", "student"],
    }
    assert {step: int(said[step]) for step in asked} == asked
    counts = json.loads((project / "runs" / "a" / "discrepancy" / "manifest.json").read_text())["counts"]
    assert {role: counts[f"{role} opaque"] for role in ("teacher", "student")} == {
        role: rows["discrepancy", role] for role in ("teacher", "student")
    }


def test_further_draws_are_in_the_plan_and_draws_of_other_kinds_read_the_picture_anew():
    plain, more = planned(annotate={"pairs_per_image": 2}), planned(annotate={"pairs_per_image": 2, "extra_draws": 0.5})
    drawn, further = plain["annotate", "teacher"], more["annotate", "teacher"]
    assert (drawn.requests, further.requests) == (200, 300)
    assert plain["identify", "student"].requests == more["identify", "student"].requests == 200
    kinds = {"textvqa": {"images": "pool", "kinds": ["this", "that"]}}
    apart = planned(annotate={"pairs_per_image": 2}, tasks=kinds)["annotate", "teacher"]
    assert (drawn.shared_prefixes, apart.shared_prefixes) == (100, 50)  # of two draws half are of the same kind


def test_teacher_forced_scoring_is_in_the_plan_where_the_objective_needs_it():
    assert not [stage for stage, _ in planned() if "discrepancy" in stage]
    found = planned(level={"objective": "discrepancy"})
    written, scored = found["discrepancy rationales", "teacher"], found["discrepancy on rationales", "student"]
    assert written.requests == scored.requests == 100 * run_of().annotate.pairs_per_image
    assert written.prompt_tokens == round(written.requests * READING.rationale.tokens)
    assert not written.given and scored.given
    assert [*planned(discrepancy={"always": True})].count(("discrepancy", "student")) == 1
    assert ("discrepancy on rationales", "student") not in planned(level={"objective": {"answer": 1, "attention": 1}})


def test_of_a_served_teacher_only_rationales_are_asked_and_its_budget_covers_them():
    found = planned(teacher="http://localhost:1/v1#large", level={"objective": "discrepancy"})
    of_teacher = [stage for stage, role in found if role == "teacher"]
    assert of_teacher == ["annotate", "identify", "discrepancy rationales", "evaluate"]
    known = {role: ModelFacts(READINGS[role], "", served=role == "teacher") for role in READINGS}
    asked = sum(work.requests for (_, role), work in found.items() if role == "teacher")
    config = run_of(server={"budget_requests": asked - 1})
    (problem,) = problems(config, [*found.values()], known, published.device("h200"))
    assert f"budget_requests is {asked - 1:,}" in problem


def test_a_step_takes_as_many_passes_as_the_terms_of_its_objective_ask_for():
    size, device = published_size("Qwen/Qwen2-VL-2B-Instruct"), published.device("a100-80gb")

    def seconds(*terms: str) -> float:
        level = decide_level(LevelSettings(objective=dict.fromkeys(terms, 1.0)), None)
        work = planned(level=level)["level", "student"]
        return costs.levelling_seconds(work, size, costs.training_mode(level, device, work, size), device)

    answer = seconds("answer")
    assert seconds("answer", "consistency") == pytest.approx(2 * answer)
    assert 2 * answer < seconds("answer", "reasoning") < 2.2 * answer
    assert seconds("answer", "reasoning", "coherence") == seconds("answer", "reasoning")
    assert seconds("answer", "confidence", "attention") == answer


@pytest.mark.parametrize(("vision", "grows"), [(0, 1), (1, 3)])
def test_a_frozen_tower_counts_once_a_picture_however_long_the_training_is(vision, grows):
    size, device = published_size("Qwen/Qwen2-VL-2B-Instruct"), published.device("a100-80gb")

    def of_tower(epochs: int) -> float:
        level = decide_level(LevelSettings(epochs=epochs, lr_multipliers=LrMultipliers(vision=vision)), None)
        work = planned(level=level)["level", "student"]._replace(eval_examples=0)
        mode = costs.training_mode(level, device, work, size)
        with_tower, without = (
            costs.levelling_seconds(each, size, mode, device) for each in (work, work._replace(patches=0))
        )
        return with_tower - without

    assert of_tower(6) == pytest.approx(grows * of_tower(2))


def test_processes_that_share_a_training_each_look_at_the_pictures_that_they_are_dealt():
    """Of two processes each sees half of the pictures in one epoch, and nearly all in many."""
    size, device = published_size("Qwen/Qwen2-VL-2B-Instruct"), published.device("a100-80gb")

    def of_tower(epochs: int, processes: int) -> float:
        frozen = LrMultipliers(vision=0)
        level = decide_level(LevelSettings(epochs=epochs, lr_multipliers=frozen, processes=processes), None)
        work = planned(level=level)["level", "student"]._replace(eval_examples=0)
        mode = costs.training_mode(level, device, work, size)
        with_tower, without = (
            costs.levelling_seconds(each, size, mode, device) for each in (work, work._replace(patches=0))
        )
        return with_tower - without

    for epochs in (1, 2, 3, 6):
        assert of_tower(epochs, 2) == pytest.approx(2 * (1 - 0.5**epochs) * of_tower(epochs, 1))


def test_reading_a_given_reply_takes_less_time_than_writing_it_and_more_memory():
    size, device = published_size("Qwen/Qwen2-VL-7B-Instruct"), published.device("a100-80gb")
    found = planned(level={"objective": "discrepancy"})
    given, written = found["discrepancy on rationales", "teacher"], found["discrepancy rationales", "teacher"]
    assert costs.asking_seconds(given, size, AS_IT_IS, device) < costs.asking_seconds(written, size, AS_IT_IS, device)
    few = [work._replace(requests=1, prompt_tokens=900, reply_tokens=50, patches=4000) for work in (given, written)]
    assert costs.asking_memory(few[0], size, AS_IT_IS, device) > costs.asking_memory(few[1], size, AS_IT_IS, device)


def test_adapters_fewer_bits_and_checkpointing_take_less_memory():
    (size, device) = (
        size_of(place_of("Qwen/Qwen2-VL-2B-Instruct", AS_IT_IS, offline=True), AS_IT_IS),
        published.device("h200"),
    )
    work = Workload("level", "student", 100, 100_000, 500, 400_000, steps=10)

    def memory(**changes) -> float:
        level = decide_level(LevelSettings(micro_batch_size=2, **changes), None)
        return costs.levelling_memory(work, size, costs.training_mode(level, device, work, size), level, device)

    full, lora, qlora = (memory(method=method) for method in ("full", "lora", "qlora"))
    assert full > lora > qlora > memory(method="qlora", gradient_checkpointing=True)
    # Weights, gradients and two averages in float32, and autocast's copy in bfloat16.
    level = decide_level(LevelSettings(method="full"), None)
    assert costs._held(size, costs.training_mode(level, device, work, size), level) == 18 * size.parameters < full
    assert memory(lr_multipliers={"vision": 0}) < full
    saved = memory(method="full", optimiser="adafactor")
    assert full - saved == pytest.approx(8 * size.parameters) and saved < memory(method="full", optimiser="adamw_8bit")
    assert memory(method="lora", lr_multipliers={"vision": 0}) < lora
    # When training beside 4 bits ends, the student is opened in bfloat16.
    large = published_size("Qwen/Qwen2-VL-7B-Instruct")
    level = decide_level(LevelSettings(method="qlora", micro_batch_size=1, gradient_checkpointing=True), None)
    short = Workload("level", "student", 10, 100, 50, 400, steps=1)
    mode = costs.training_mode(level, device, short, large)
    assert costs.levelling_memory(short, large, mode, level, device) == costs.RUNTIME_BYTES[True] + 2 * large.parameters
    shrunk = [
        costs.weights(large, LoadingSettings(**said), device)
        for said in ({"dtype": "float32"}, {}, {"quantise": "8bit"}, {"quantise": "4bit"})
    ]
    assert shrunk == sorted(shrunk, reverse=True)
    assert shrunk[0] == 2 * shrunk[1] == 4 * large.parameters


def test_preparing_pictures_is_counted_once_for_a_stage_and_in_training_at_each_visit_of_those_that_are_not_kept(
    pool, monkeypatch
):
    clock = count(step=7)  # each measured stretch takes seven seconds
    for module in (sampling, sizing):
        monkeypatch.setattr(module, "process_time", lambda: next(clock))
    sizing._of_size.cache_clear()
    config = load_config(configured(pool, teacher="http://localhost:1/v1#large", annotate={"pairs_per_image": 2}))
    rows = {(row.stage, row.model): row for row in projected(config, NOT_MEASURED).rows}
    assert rows["annotate", "teacher"].preparation is None  # the server's own work
    pictures = len([*(pool / "pool").iterdir()])
    each = 7 / pictures + 7 / pictures  # read, and prepared
    assert rows["identify", "student"].preparation == pytest.approx(pictures * each)
    level, picked = rows["level", "student"], choice_counts(12, 6, config.level)
    different = min(pictures, picked.training) + min(pictures, picked.held_out)
    assert level.preparation == pytest.approx(different * each)
    work = Workload("level", "student", 1000, 0, 0, 0, steps=10, eval_examples=100, pictures=200)
    large, room = costs.CACHE_BYTES / 50, config.loading  # memory keeps 50, the disk as many in twice the space
    none, some = (room.model_copy(update={"prepared_gigabytes": gigabytes}) for gigabytes in (0.0, 50 * large / 1e9))
    assert [costs.prepared(work, Preparation(0.0, large, large), each) for each in (none, some, room)] == pytest.approx(
        [50 + 1100 * 3 / 4, 100 + 1100 / 2, 200]
    )
    assert costs.prepared(work._replace(views=1000), Preparation(0.0, 1.0, 1.0), room) == pytest.approx(1200)


def test_what_is_kept_of_pictures_is_counted_pixels_in_training_and_features_in_asking():
    work, each = Workload("level", "student", 1000, 0, 0, 0, steps=10, pictures=200), Preparation(0.0, 5e4, 5e4, 8e3)
    assert costs.kept_in_memory(work, each) == 200 * 5e4
    assert costs.kept_in_memory(work._replace(steps=0), each) == 200 * 8e3
    assert costs.kept_in_memory(work._replace(steps=0, pictures=10**9), each) == KEPT_BYTES["cpu"]


def test_replicas_and_processes_share_the_hours_and_not_the_work(pool):
    models = {"teacher": "hf:Qwen/Qwen2-VL-7B-Instruct", "student": "hf:Qwen/Qwen2-VL-2B-Instruct"}
    learns = {"lr_multipliers": {"vision": 1.0}}  # a tower that does not is asked by each process
    shared = {"loading": {"teacher": {"replicas": 4}}, "level": {**learns, "processes": 2, "batch_size": 9}}
    options = PlanOptions(SamplingOptions(offline=True), device="h200", benchmark=False)
    one, several = (
        projected(load_config(configured(pool, **models, **more)), options) for more in ({"level": learns}, shared)
    )
    faster = {"teacher": 4, "student": 1}
    for alone, together in zip(one.rows, several.rows, strict=True):
        if alone.steps:
            assert together.seconds * 2 == pytest.approx(alone.seconds) and together.memory < alone.memory
        else:
            assert together.seconds * faster[alone.model] == pytest.approx(alone.seconds)
            assert (together.requests, together.memory) == (alone.requests, alone.memory)
    said = [line for line in several.assumed if "processes" in line]
    assert [line.partition(",")[0] for line in said] == ["teacher: 4 processes", "level: 2 processes"]


def test_kernels_for_shapes_of_batches_are_counted_on_a_processor_up_to_as_many_as_are_kept():
    gpu = published.device("h100-80gb")
    processor = gpu._replace(is_gpu=False)
    none, more, many, most = (Workload("level", "student", 1, 1, 1, 1, steps=steps) for steps in (0, 8, 200, 5000))
    assert costs.kept_kernels(most, gpu) == costs.kept_kernels(none, processor) == 0
    assert 0 < costs.kept_kernels(more, processor) < costs.kept_kernels(many, processor) <= 0.3e9
    assert costs.kept_kernels(many, processor) == costs.kept_kernels(most, processor)


def test_a_student_that_processes_divide_takes_its_part_of_weights_gradients_and_averages():
    size, device = published_size("Qwen/Qwen2-VL-2B-Instruct"), published.device("h100-80gb")
    work = Workload("level", "student", 100, 100_000, 500, 400_000, steps=10)

    def memory(processes: int, **changes) -> float:
        said = {"method": "full", "micro_batch_size": 1, "processes": processes, **changes}
        level = decide_level(LevelSettings(**said), None)
        return costs.levelling_memory(work, size, costs.training_mode(level, device, work, size), level, device)

    assert memory(8) == memory(1) == memory(1, sharded=True)
    two, four, eight = (memory(processes, sharded=True) for processes in (2, 4, 8))
    # Of 16 bytes a parameter each has its part; activations, and what is whole during a pass, do not change.
    assert two - four == pytest.approx(16 * size.parameters / 4)
    assert four - eight == pytest.approx(16 * size.parameters / 8)
    layer = size.language.parameters / size.language.layers
    whole = 8 * (size.parameters - size.language.parameters) + 12 * layer
    assert memory(1) - two == pytest.approx(16 * size.parameters / 2 - whole)


def test_the_advice_names_what_several_devices_would_divide_and_settings_that_go_with_it(pool):
    models = {"teacher": "hf:Qwen/Qwen2-VL-2B-Instruct", "student": "hf:Qwen/Qwen2-VL-7B-Instruct"}
    options = PlanOptions(SamplingOptions(offline=True), device="h200", benchmark=False)

    def said(**level) -> tuple[str, list[str]]:
        plan = projected(load_config(configured(pool, **models, level={"method": "full", **level})), options)
        return next(iter(plan.problems), ""), plan.assumed

    sharded = "level.method: full and level.sharded: true"
    alone, _ = said()
    assert f"several such devices with {sharded}" in alone
    together, _ = said(processes=8)
    assert re.search(rf"Would fit: .*{sharded} \(\d", together)
    problem, assumed = said(processes=8, sharded=True)
    assert not problem
    assert [line for line in assumed if "which divide the student among them, share each step" in line]
    few = {"processes": 2, "sharded": True, "micro_batch_size": 1}
    small = replace(options, device="l4")
    plan = projected(load_config(configured(pool, **models, level={"method": "full", **few})), small)
    (problem,) = [text for text in plan.problems if text.startswith("training")]
    assert "level.method: lora and level.gradient_checkpointing: true without level.sharded" in problem
    assert sharded not in problem
    adapters, _ = said(method="lora", lora_rank=4096)
    assert "sharded" not in adapters


def test_pictures_of_tests_are_on_the_disk_when_checkpoints_are_not():
    config = run_of(loading={"prepared_gigabytes": 1000.0}, level={"method": "full"})
    size = published_size("Qwen/Qwen2-VL-2B-Instruct")
    sizes = replace(READING, preparation=Preparation(0.0, 1e6, 1e6))
    known = {"student": ModelFacts({"textvqa": sizes}, "", size), "teacher": ModelFacts({"textvqa": sizes}, "")}

    def disk(questions: int) -> float:
        amounts = {"textvqa": Counts(100, questions)}
        found = workloads(config, amounts, READINGS, {"textvqa": Shares.assumed(0.5)})
        return planner._disk(config, 100, found, known) - costs.records(100, found)

    training = costs.disk(size, config.level) + 2 * 100 * 1e6
    assert disk(0) == disk(10) == pytest.approx(training)
    many = 200_000
    assert disk(many) == pytest.approx(costs.student_on_disk(size) + 2 * (100 + many) * 1e6)


@pytest.mark.parametrize(
    ("wanted", "gpus", "processes", "times"),
    [(None, 0, 1, 1), (3, 0, 3, 1), (None, 1, 1, 1), (None, 4, 4, 4), (2, 4, 2, 2), (6, 4, 6, 4), (3, None, 3, 3)],
)
def test_no_more_processes_are_faster_than_there_are_gpus(pool, wanted, gpus, processes, times):
    said = {"replicas": "auto" if wanted is None else wanted}
    config = load_config(configured(pool, loading={"student": said}))
    found = asking(config, "student", gpus)
    assert (found.processes, found.times_as_fast) == (processes, times)
    spread = load_config(configured(pool, loading={"student": {"device_map": "auto"}}))
    assert asking(spread, "student", gpus).processes == levelling(spread, gpus).processes == 1


def test_replicas_on_a_cluster_are_counted_as_far_as_they_are_said(pool):
    told = {}
    for replicas in (6, "auto"):
        there = {"ray": {"address": "10.0.0.1:6379"}, "loading": {"student": {"replicas": replicas}}}
        config = load_config(configured(pool, **there))
        told[replicas] = asking(config, "student", 0)
    assert (told[6].times_as_fast, told[6].in_words) == (6, "6 replicas on Ray")
    assert (told["auto"].times_as_fast, told["auto"].in_words) == (
        1,
        "as many replicas on Ray as its nodes have room for",
    )
    here = load_config(configured(pool, ray={}, loading={"student": {"replicas": 6}}))
    assert asking(here, "student", 2).times_as_fast == 2  # on a cluster of this machine alone


def test_what_does_not_fit_is_named_with_what_would(pool):
    models = {"teacher": "hf:Qwen/Qwen2-VL-7B-Instruct", "student": "hf:Qwen/Qwen2-VL-2B-Instruct"}
    config = configured(pool, **models, level={"method": "full", "lr_multipliers": {"vision": 1}})
    said = done("plan", config, "--offline", "--device", "t4")
    assert "disk: up to 110.4 GB" in said  # four checkpoints of 12 bytes a weight, and the student
    assert "asking the teacher (annotate) takes" in said
    assert "loading.teacher.quantise: 4bit (" in said
    assert "training the student takes" in said
    assert "level.method: lora" in said
    assert "Does not fit" not in done("plan", config, "--offline", "--device", "h200")


@pytest.mark.slow
def test_a_served_teacher_costs_money_and_budgets_are_compared(pool):
    prices = {"prompt_price": 10.0, "completion_price": 40.0, "budget_requests": 8, "budget_money": 100.0}
    config = configured(pool, teacher="http://localhost:1/v1#large", server=prices)
    plan = projected(load_config(config), NOT_MEASURED)
    annotate = plan.rows[0]
    assert annotate.seconds is None
    assert annotate.money == (annotate.prompt_tokens * 10 + annotate.reply_tokens * 40) / 1e6
    assert plan.money == sum(row.money for row in plan.rows if row.model == "teacher")
    assert [problem for problem in plan.problems if "budget_requests is 8" in problem]
    assert not [problem for problem in plan.problems if "budget_money" in problem]
    assert any("pixels" in line for line in plan.assumed)
    assert not any("without confidence" in line for line in plan.assumed)
    explained = configured(pool, teacher="http://localhost:1/v1#large", level={"objective": "discrepancy"})
    assert any("without confidence" in line for line in projected(load_config(explained), NOT_MEASURED).assumed)


def test_a_served_model_with_a_published_name_is_counted_by_its_architecture(pool):
    config = configured(pool, teacher="http://localhost:1/v1#Qwen/Qwen2-VL-7B-Instruct")
    plan = projected(load_config(config), PlanOptions(SamplingOptions(offline=True), benchmark=False))
    assert "8,291,375,616 parameters" in plan.models[0]
    assert plan.rows[0].seconds is None


@pytest.mark.slow
def test_the_embedded_models_are_measured_and_the_run_folder_is_left_alone(pool):
    said = done("plan", configured(pool, level={"epochs": 1}), "--sample", 2)
    assert "student: seconds as measured here, asked about" in said and "trained a few steps on their answers" in said
    assert "968,832 parameters" in said
    assert not (pool / "runs").exists()


def test_for_programs_the_same_is_printed_as_json(pool):
    config = configured(pool)
    found = json.loads(done("plan", config, "--no-benchmark", "--device", "l4", "--json"))
    assert [row["stage"] for row in found["rows"]] == ["annotate", "identify", "identify", "level"]
    for number in ("requests", "prompt_tokens", "steps", "seconds"):
        assert found["total"][number] == pytest.approx(sum(row[number] for row in found["rows"]))
    assert found["device"]["memory"] == 24e9
    assert found["assumed"]


@pytest.mark.slow
def test_fewer_pixels_cost_fewer_tokens(pool):
    for number in range(6):
        draw(pool / "pool" / f"{number}.png", size=(1200, 900))
    tokens = {}
    for pixels in (None, 200_000):
        config = run_of(loading={"teacher": {"max_pixels": pixels}}).model_copy(
            update={"tasks": load_config(configured(pool)).tasks}
        )
        tokens[pixels] = (
            projected(config, PlanOptions(SamplingOptions(offline=True), device="l4")).rows[0].prompt_tokens
        )
    assert tokens[200_000] < tokens[None] / 3


@pytest.mark.slow
def test_broken_pictures_are_passed_over_and_counted_as_images(pool):
    (pool / "pool" / "0.png").write_bytes(b"no picture")
    plan = projected(load_config(configured(pool)), NOT_MEASURED)
    assert plan.rows[0].requests == 6
    for path in (pool / "pool").iterdir():
        path.write_bytes(b"no picture")
    assert any("none was opened" in line for line in projected(load_config(configured(pool)), NOT_MEASURED).assumed)


def test_offline_no_source_on_the_hub_is_opened_and_that_is_said(pool, monkeypatch):
    asked = []
    monkeypatch.setattr(
        hub_source, "open_table", lambda name, **_: asked.append(name) or hf_datasets.SplitRows(iter(()), None)
    )
    mixed = {"textvqa": {"images": ["hf:someone/photos:train", "pool"]}, "okvqa": {"images": "hf:someone/more"}}
    config = load_config(configured(pool, tasks=mixed))
    said = projected(
        config, PlanOptions(SamplingOptions(images=60, offline=True), device="l4", benchmark=False)
    ).assumed
    assert not asked
    (mixed,) = [line for line in said if line.startswith("textvqa: ")]
    assert "hf:someone/photos:train not read" in mixed and "--offline" in mixed and "none was opened" not in mixed
    (alone,) = [line for line in said if line.startswith("okvqa: ")]
    assert "hf:someone/more not read (--offline)" in alone and "1024x768 pixels, since none was opened" in alone
    said = projected(config, PlanOptions(SamplingOptions(images=60), device="l4", benchmark=False)).assumed
    assert set(asked) == {"someone/photos:train", "someone/more"}
    assert not [line for line in said if "--offline" in line]


def test_offline_a_folder_in_the_form_of_the_hub_is_opened_all_the_same(pool):
    row = {"bytes": (pool / "pool" / "2.png").read_bytes(), "path": None}
    (pool / "copy").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([{"image": row}] * 3), pool / "copy" / "train-0.parquet")
    config = load_config(configured(pool, tasks={"textvqa": {"images": "hf:./copy:train"}}))
    said = projected(config, PlanOptions(SamplingOptions(images=3, offline=True), device="l4", benchmark=False)).assumed
    assert not [line for line in said if "not read" in line or "none was opened" in line]


def test_where_nobody_knows_how_many_images_there_are_the_user_says_it(pool, monkeypatch):
    stream = replace(open_source(str(pool / "pool")), count=lambda: None, holds_files=False)
    monkeypatch.setattr(sampling, "open_source", lambda spec: stream)
    config = configured(pool)
    assert "--images" in refusal("plan", config, "--device", "l4")
    said = json.loads(done("plan", config, "--device", "l4", "--images", 100, "--json"))
    assert said["rows"][0]["requests"] == 100
    assert any("100 images" in line for line in said["assumed"])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--device", "a10o"), "Did you mean a10?"),
        (("--device", "a10", "--benchmark"), "Give one of them"),
        (("--image-size", "large"), "1024x768"),
        (("--image-size", "0x9"), "1024x768"),
    ],
)
def test_wrong_options_are_refused_with_what_would_be_right(pool, options, told):
    assert told in refusal("plan", configured(pool), *options)


def test_a_model_that_nobody_knows_is_refused_with_those_in_the_table(pool):
    config = configured(pool, teacher="hf:nobody/nothing")
    told = refusal("plan", config, "--offline", "--device", "l4")
    assert "nobody/nothing" in told
    assert "Qwen/Qwen2-VL-7B-Instruct" in told


def test_a_folder_that_is_no_model_is_refused(pool):
    assert "pool" in refusal("plan", configured(pool, teacher="hf:./pool"), "--device", "l4")


def test_devices_are_known_by_what_their_drivers_call_them():
    assert published.device_called("NVIDIA A100-SXM4-80GB", 85.0e9).name == "a100-80gb"
    assert published.device_called("NVIDIA A100-PCIE-40GB", 42.4e9).name == "a100-40gb"
    assert published.device_called("NVIDIA GeForce RTX 4090", 25.3e9).name == "rtx-4090"
    assert published.device_called("NVIDIA H200", 150.0e9).name == "h200"
    assert published.device_called("A device of tomorrow", 1e9) is None


def test_a_size_is_read_as_width_and_height():
    assert size_of_picture("640x480") == (640, 480)
    with pytest.raises(UserError, match="'640'"):
        size_of_picture("640")


def test_settling_is_in_the_plan_with_a_question_at_most_about_each_answer_and_no_picture():
    found = planned(identify={"settle": "teacher"})
    student, teacher = (found["identify", role].requests for role in ("student", "teacher"))
    settling = found["identify settling, at most", "teacher"]
    assert settling.requests == student + teacher and settling.patches == 0
    assert not [stage for stage, _ in planned() if "settling" in stage]
