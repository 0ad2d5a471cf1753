"""The worlds, what is written of them, how the models are taught, and the bundled models themselves."""

import inspect
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

from demo_models import apart
from demo_models.build import ASSISTANT, END, IMAGE, USER, build_model, build_processor, build_tokenizer
from demo_models.recipe import (
    ASKING,
    EXPLAINING,
    PROCESSES,
    TOWER,
    WHOLE,
    first_asking_seed,
    first_explained_seed,
    first_whole_seed,
    kind_prompts,
    talk_maker,
)
from demo_models.schooling import (
    TOWER_MIX,
    TRAINING_SEEDS,
    WHOLE_MIX,
    Talk,
    cued,
    drawn,
    packed,
    student_was_shown,
    student_was_told,
    visible,
    world_of,
)
from makers import content, mute
from parityalign.cli.run_commands import DEMO_CONFIG, demo_command
from parityalign.config import read_config
from parityalign.core.errors import UserError
from parityalign.core.interfaces import Decoding, Request
from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.demo import generate
from parityalign.demo.canvas import SIDE, Fact
from parityalign.demo.splits import ten_answers
from parityalign.demo.worlds import KINDS, WORLDS
from parityalign.metrics import textvqa_accuracy
from parityalign.models.loading import open_processor
from parityalign.models.open import load_model
from parityalign.stages.parsing import ParsedPair, read_pair, read_rationale
from parityalign.tasks import load_task


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small demo: sixty pool pictures and twelve test pictures a world."""
    folder = tmp_path_factory.mktemp("data")
    generate.write_demo_data(folder, 0, mute, pictures=60)
    return folder


@pytest.mark.parametrize("task", WORLDS)
def test_a_seed_always_draws_the_same_picture(task):
    first, second = (WORLDS[task](Random(3)) for _ in range(2))
    assert first.facts == second.facts
    assert first.image.tobytes() == second.image.tobytes()
    assert first.image.size == (SIDE, SIDE)


@pytest.mark.slow
@pytest.mark.parametrize("task", WORLDS)
def test_a_question_has_one_answer_on_a_picture(task):
    for seed in range(300):
        answers = {}
        for fact in WORLDS[task](Random(seed)).facts:
            assert answers.setdefault(fact.question, fact.answer) == fact.answer


def test_chart_facts_follow_from_the_values():
    for seed in range(200):
        facts = {fact.question: fact.answer for fact in WORLDS["chartqa"](Random(seed)).facts}
        values = {
            question.removeprefix("What is the value of ").rstrip("?"): int(answer)
            for question, answer in facts.items()
            if question.startswith("What is the value of ") and not question.startswith("What is the value of the ")
        }
        assert values[facts["Which category has the highest value?"]] == max(values.values())
        assert int(facts["What is the lowest value?"]) == min(values.values())
        for question, answer in facts.items():
            words = question.rstrip("?").split()
            if words[0] == "Is":
                assert answer == ("Yes" if values[words[1]] > values[words[-1]] else "No")
            if words[3] == "difference":
                assert int(answer) == values[words[-3]] - values[words[-1]]


@pytest.mark.parametrize("task", WORLDS)
def test_the_pool_is_nothing_but_pictures(data, task):
    files = sorted((data / "pool" / task).iterdir())
    assert len(files) == 60
    assert {file.suffix for file in files} == {".png", ".jpg"}
    assert {Image.open(file).size for file in files} == {(SIDE, SIDE)}


@pytest.mark.parametrize("task", WORLDS)
def test_the_benchmark_s_own_reader_reads_the_test_split(data, task):
    questions = load_task(task).benchmark.read_test(data / "test" / task)
    assert len(questions) == 24
    assert len({question.image for question in questions}) == 12
    if task in ("textvqa", "okvqa"):
        assert {len(question.answers) for question in questions} == {10}
    if task == "chartqa":
        assert {question.subset for question in questions} == {"human", "augmented"}


@pytest.mark.slow
def test_no_picture_is_in_two_of_pool_tests_and_training(data):
    seeds = {
        part: {seed for task in WORLDS for seed in generate.seeds(wanted, task, 0, 1500)}
        for part, wanted in (("pool", generate.POOL_SEEDS), ("test", generate.TEST_SEEDS))
    }
    assert len(seeds["pool"]) == len(seeds["test"]) == 6000
    assert not seeds["pool"] & seeds["test"]
    assert all(seed not in TRAINING_SEEDS for part in seeds.values() for seed in part)
    pool, test, training = (
        {generate.pixel_hash(image) for image in images}
        for images in (
            [WORLDS[task](Random(seed)).image for task in WORLDS for seed in range(10**9, 10**9 + 60)],
            [WORLDS[task](Random(seed)).image for task in WORLDS for seed in range(2 * 10**9, 2 * 10**9 + 60)],
            [drawn(seed)[1].image for seed in range(240)],
        )
    )
    assert len(pool) == len(test) == len(training) == 240
    assert not (pool & test or pool & training or test & training)


def test_a_training_picture_that_the_demo_shows_too_is_named():
    planted = apart.Block(range(7, 9), TOWER_MIX)
    rng = Random(8)
    picture = WORLDS[world_of(rng, TOWER_MIX)](rng)
    assert apart.met_again(planted, {generate.pixel_hash(picture.image): "pool of x, 3"}) == [
        "pool of x, 3: drawn for training from the seed 8"
    ]


def test_every_training_picture_is_compared_with_the_demo_s():
    blocks = list(apart.training_blocks())
    towers = {number for block in blocks for number in block.seeds if block.mix is TOWER_MIX}
    wholes = {number for block in blocks for number in block.seeds if block.mix is WHOLE_MIX}
    for name, schedule in TOWER.items():
        assert schedule.steps * schedule.batch_size * PROCESSES <= len(towers)
        last = first_whole_seed(name) + WHOLE[name].steps * WHOLE[name].batch_size * PROCESSES - 1
        assert {first_whole_seed(name), last} <= wholes
    for lessons, first_seed in ((EXPLAINING, first_explained_seed), (ASKING, first_asking_seed)):
        for name, schedule in lessons.items():
            first = first_seed(name)
            assert {first, first + schedule.steps * schedule.batch_size * PROCESSES - 1} <= wholes


@pytest.mark.slow
def test_the_student_is_asked_only_for_names_that_it_was_told():
    sights = {sight for draw in WORLDS.values() for seed in range(200) for sight in draw(Random(seed)).sights}
    shown = {sight for sight in sights if student_was_shown(sight)}
    told = {word for sight in shown for word in sight.split()}
    assert all(student_was_told(Fact("", "", "", word)) for word in told)
    assert 0 < len(shown) < len(sights)


def test_a_sight_is_found_by_a_cue_from_either_end():
    assert cued(["mon 40", "red mon", "red bar 40", "place 0 mon", "stop"]) == {
        "": {"stop"},
        "mon ?": {"40"},
        "? 40": {"mon"},
        "red ?": {"mon"},
        "? mon": {"red"},
        "red bar ?": {"40"},
        "place 0 ?": {"mon"},
    }


def test_a_pool_picture_s_truth_can_be_drawn_again(data):
    file = min((data / "pool" / "okvqa").glob("*.png"))
    again = WORLDS["okvqa"](Random(int(file.stem)))
    assert generate.truth("okvqa", file) == again.facts
    assert Image.open(file).tobytes() == again.image.tobytes()


def test_data_that_is_there_is_not_drawn_again(data):
    before = {file: file.stat().st_mtime_ns for file in data.rglob("*.*")}
    generate.write_demo_data(data, 0, mute, pictures=60)
    assert before == {file: file.stat().st_mtime_ns for file in data.rglob("*.*")}


def test_a_smaller_demo_has_a_fifth_as_many_test_pictures_and_at_least_one(tmp_path):
    for pictures, tests in ((1, 1), (9, 1), (10, 2)):
        folder = tmp_path / str(pictures)
        generate.write_demo_data(folder, 0, mute, pictures=pictures)
        assert len(list((folder / "pool" / "okvqa").iterdir())) == pictures
        assert len(list((folder / "test" / "okvqa" / "val2014").iterdir())) == tests
    assert f"(default: {generate.POOL_PICTURES})" in inspect.getsource(demo_command)


def test_the_demo_draws_over_nothing_that_it_has_not_drawn(tmp_path):
    photo = tmp_path / "data" / "pool" / "photo.png"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"mine")
    with pytest.raises(UserError, match="holds pool, which the demo has not drawn"):
        generate.write_demo_data(tmp_path / "data", 0, mute, pictures=1)
    assert photo.read_bytes() == b"mine"


def test_drawing_that_was_cut_off_is_begun_anew(tmp_path):
    def interrupt(step, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate.write_demo_data(tmp_path / "cut", 0, interrupt, pictures=1)
    for folder in ("cut", "whole"):
        generate.write_demo_data(tmp_path / folder, 0, mute, pictures=1)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_annotators_disagree_yet_the_true_answer_nearly_always_makes_the_full_score():
    fact, rng = Fact("read", "What does the sign say?", "stop", "stop"), Random(0)
    tens = [ten_answers(fact, ["exit", "milk"], rng) for _ in range(500)]
    assert {len(ten) for ten in tens} == {10}
    assert 0.4 < sum(len(set(ten)) > 1 for ten in tens) / 500 < 0.9
    assert sum(textvqa_accuracy("stop", ten).value for ten in tens) / 500 > 0.98
    assert sum(textvqa_accuracy("exit", ten).value for ten in tens) / 500 < 0.2


@pytest.mark.slow
def test_the_student_was_told_about_half_of_the_subjects():
    facts = {
        fact for draw in WORLDS.values() for seed in range(300) for fact in draw(Random(seed)).facts if fact.subject
    }
    subjects = {fact.subject for fact in facts}
    told = {fact.subject for fact in facts if student_was_told(fact)}
    assert 0.3 < len(told) / len(subjects) < 0.7


@pytest.fixture(scope="module")
def untrained():
    """A student with random weights, and its processor."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["what", "stop", "exit", "is"], ["Answer in a word."])
    return build_model("student", len(tokenizer)).eval(), build_processor(tokenizer)


def test_any_ascii_text_survives_the_tokenizer_in_lower_case(untrained):
    tokenizer = untrained[1].tokenizer
    text = "What is (xyz-12) 3.5 %?"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text.lower()
    assert len(tokenizer("stop? Answer in a word.")["input_ids"]) == 3


def test_a_question_in_a_packed_row_gets_the_logits_that_it_gets_alone(untrained):
    model, processor = untrained
    tokens = lambda text: processor.tokenizer(text)["input_ids"]  # noqa: E731
    prefix = tokens(USER + IMAGE * 16)
    talks = [Talk(tokens("what is" + ASSISTANT), tokens("stop" + END)), Talk(tokens("is?" + ASSISTANT), tokens("exit"))]
    pixels = torch.randn(1, 3, SIDE, SIDE)

    def logits(rows):
        ids, labels, segments, positions = packed(prefix, rows)
        seen = model.get_image_features(pixel_values=pixels).pooler_output
        embedded = model.get_input_embeddings()(ids).masked_scatter((ids == 2)[..., None], seen)
        hidden = model.model.language_model(
            inputs_embeds=embedded, attention_mask=visible(segments), position_ids=positions, use_cache=False
        ).last_hidden_state
        return model.lm_head(hidden)[0], labels[0]

    with torch.no_grad():
        together, labels = logits([talks])
        alone, own_labels = logits([talks[1:]])
        ids = torch.tensor([prefix + talks[1].asked + talks[1].said])
        plain = model(input_ids=ids, pixel_values=pixels).logits[0]
    second = len(talks[1].asked) + len(talks[1].said)
    assert torch.allclose(together[-second:], alone[-second:], atol=1e-5)
    assert torch.allclose(plain[-second:], alone[-second:], atol=1e-5)
    assert [int(label) for label in labels if label != -100] == talks[0].said + talks[1].said
    assert [int(label) for label in own_labels if label != -100] == talks[1].said


def test_the_bundled_models_are_small_enough_for_a_wheel():
    files = [file for file in EMBEDDED_MODELS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 16 * 2**20
    assert not [file for file in files if file.suffix in (".bin", ".pt", ".pth", ".pkl", ".py")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", ["chartqa", *(pytest.param(task, marks=pytest.mark.long) for task in ("textvqa", "stvqa", "okvqa"))]
)
def test_the_bundled_models_answer_and_the_teacher_knows_more(task, tmp_path):
    asked = []
    for seed in range(generate.TEST_SEEDS.stop - 40, generate.TEST_SEEDS.stop):
        picture = WORLDS[task](Random(seed))
        picture.image.save(tmp_path / f"{seed}.png")
        asked += [
            (Request(str(tmp_path / f"{seed}.png"), load_task(task).answer_prompt.format(question=fact.question)), fact)
            for fact in picture.facts[:4]
        ]
    right = {}
    for name in ("teacher", "student"):
        texts = load_model(f"embedded:{name}").generate([request for request, _ in asked], Decoding(8))
        right[name] = sum(text == fact.answer.lower() for text, (_, fact) in zip(texts, asked, strict=True)) / len(
            asked
        )
    assert right["teacher"] > 0.85
    assert 0.2 < right["student"] < right["teacher"] - 0.2


@pytest.mark.long
@pytest.mark.parametrize("task", WORLDS)
def test_the_bundled_teacher_obeys_the_annotate_prompt(task, data):
    prompt = load_task(task, kinds=False).annotate_prompt
    teacher = load_model("embedded:teacher")
    requests = [Request(str(file), prompt, seed) for file in (data / "pool" / task).iterdir() for seed in range(4)]
    replies = teacher.generate(requests, Decoding(32, temperature=1.0))
    pairs = [read_pair(reply, teacher.special_tokens) for reply in replies]
    assert sum(isinstance(pair, ParsedPair) for pair in pairs) / len(pairs) > 0.8
    assert len({pair.question for pair in pairs if isinstance(pair, ParsedPair)}) > 3


def test_the_demo_asks_for_the_kinds_that_the_teacher_was_taught():
    tasks = read_config(DEMO_CONFIG, Path("runs/any")).tasks
    assert {name: data.kinds for name, data in tasks.items()} == {name: tuple(kinds) for name, kinds in KINDS.items()}


@pytest.mark.parametrize("task", WORLDS)
def test_what_can_be_asked_about_a_picture_is_of_some_kind(task):
    known = {fact for facts in KINDS[task].values() for fact in facts}
    assert known == {fact.kind for seed in range(200) for fact in WORLDS[task](Random(seed)).facts}


def test_a_kind_is_asked_for_in_the_teacher_s_own_words_for_it():
    tokenizer = open_processor(str(EMBEDDED_MODELS / "teacher")).tokenizer
    prompts = [prompt for of_task in kind_prompts().values() for prompt in of_task.values()]
    assert all(len(tokenizer(prompt)["input_ids"]) == 1 for prompt in prompts)
    assert len(prompts) == len(set(prompts))


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", ["chartqa", *(pytest.param(task, marks=pytest.mark.long) for task in ("textvqa", "stvqa", "okvqa"))]
)
def test_the_bundled_teacher_asks_what_kind_of_question_it_is_asked_for(task, tmp_path):
    requests, allowed = [], []
    for seed in range(generate.TEST_SEEDS.stop - 20, generate.TEST_SEEDS.stop):
        picture = WORLDS[task](Random(seed))
        picture.image.save(tmp_path / f"{seed}.png")
        for kind, facts in KINDS[task].items():
            fitting = [fact for fact in generate.truth(task, tmp_path / f"{seed}.png") if fact.kind in facts]
            if fitting:
                requests.append(Request(str(tmp_path / f"{seed}.png"), kind_prompts()[task][kind], seed))
                allowed.append({fact.question.lower() for fact in fitting})
    teacher = load_model("embedded:teacher")
    replies = teacher.generate(requests, Decoding(32, temperature=1.0, top_p=0.9))
    pairs = [read_pair(reply, teacher.special_tokens) for reply in replies]
    obeyed = sum(
        isinstance(pair, ParsedPair) and pair.question.lower() in known
        for pair, known in zip(pairs, allowed, strict=True)
    )
    assert obeyed / len(pairs) > 0.8


def test_every_comparison_that_a_chart_s_values_imply_is_part_of_its_truth(tmp_path):
    file = tmp_path / "7.png"
    facts = generate.truth("chartqa", file)
    drawn_facts = WORLDS["chartqa"](Random(7)).facts
    labels = {fact.subject for fact in drawn_facts if fact.kind.startswith("lookup_")}
    answers = {fact.question: fact.answer for fact in facts}
    assert set(drawn_facts) <= set(facts)
    for first in labels:
        for second in labels - {first}:
            assert {answers[f"Is {one} greater than {two}?"] for one, two in ((first, second), (second, first))} == {
                "Yes",
                "No",
            }
            assert (
                answers[f"What is the difference between {first} and {second}?"]
                == (answers[f"What is the difference between {second} and {first}?"])
            )


@pytest.mark.long
@pytest.mark.parametrize("name", ["teacher", "student"])
@pytest.mark.parametrize("task", WORLDS)
def test_what_explains_an_answer_is_said_in_words_that_the_models_have(task, name):
    tokenizer = open_processor(str(EMBEDDED_MODELS / name)).tokenizer
    words = {word for seed in range(200) for fact in WORLDS[task](Random(seed)).facts for word in fact.because.split()}
    assert all(fact.because for seed in range(200) for fact in WORLDS[task](Random(seed)).facts)
    assert [word for word in words if len(tokenizer(word)["input_ids"]) != 1] == []


@pytest.mark.parametrize("task", WORLDS)
def test_the_teacher_is_taught_rationales_that_can_be_read_and_lead_to_the_answer(task):
    processor = open_processor(str(EMBEDDED_MODELS / "teacher"))
    maker = talk_maker(processor, explained=3)
    for seed in range(20):
        picture = WORLDS[task](Random(seed))
        said = [processor.tokenizer.decode(talk.said[:-1]) for talk in maker(task, picture, Random(seed))]
        found = [read_rationale(text) for text in said if text.startswith("Explanation:")]
        assert len(found) == min(3, len({fact.kind for fact in picture.facts}))
        known = {(fact.because, fact.answer.lower()) for fact in picture.facts}
        assert {(each.rationale, each.answer) for each in found} <= known


@pytest.mark.long
@pytest.mark.parametrize("task", WORLDS)
def test_the_bundled_teacher_tells_how_it_gets_to_an_answer(task, tmp_path):
    requests, facts = [], []
    for seed in range(generate.TEST_SEEDS.stop - 40, generate.TEST_SEEDS.stop):
        picture = WORLDS[task](Random(seed))
        picture.image.save(tmp_path / f"{seed}.png")
        for fact in picture.facts[:3]:
            prompt = load_task(task).rationale_prompt.format(question=fact.question)
            requests.append(Request(str(tmp_path / f"{seed}.png"), prompt))
            facts.append(fact)
    read = [read_rationale(reply) for reply in load_model("embedded:teacher").generate(requests, Decoding(40))]
    right = sum(each is not None and each.answer == fact.answer.lower() for each, fact in zip(read, facts, strict=True))
    true = sum(each is not None and each.rationale == fact.because for each, fact in zip(read, facts, strict=True))
    assert right / len(facts) > 0.8
    assert true / len(facts) > 0.6
