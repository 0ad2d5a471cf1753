"""Levelling at tiny size: the mask, the loss, what training keeps and restores, and exact resuming."""

import math
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import tiny
from parityalign.config.training import LevelSettings
from parityalign.core.errors import UserError
from parityalign.core.interfaces import Decoding, Request
from parityalign.models.backends import hf
from parityalign.models.encoding import Prompter, read_image
from parityalign.models.labels import LabelEncoder
from parityalign.models.loading import open_processor
from parityalign.training import ahead, train, trainer
from parityalign.training import student as student_module
from parityalign.training.checkpoints import COMPLETE
from parityalign.training.collator import AnswerCollator, Example

PROMPT = "{question}\nanswer"
ANSWERS = ("red", "green", "blue square")
STOP = [1]


class Killed(BaseException):
    """Stands for a kill."""


def killed(*_, **__):
    """Whatever was called is where the kill comes."""
    raise Killed


def mute(step, done, total):
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.fast_vlm(tmp_path_factory.mktemp("student"), dtype=torch.float16))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.drawn(tmp_path_factory.mktemp("images"), 12)


@pytest.fixture(scope="module")
def pairs(images):
    return tiny.pairs(images, ANSWERS)


def leveller(student, progress=mute, objective=tiny.ANSWER, **choices):
    plan = LevelSettings(**({"batch_size": 4, "epochs": 4, "learning_rate": 3e-3} | choices))
    return train.make_leveller(student, {"toy": PROMPT}, settings=plan, objective=objective, seed=3, progress=progress)


def level(student, pairs, out, **choices):
    return leveller(student, **choices)(pairs[:9], pairs[9:], out)


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def loss_on(folder, pairs):
    """The token-mean loss in float32, with transformers alone and one row at a time."""
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    losses = []
    for pair in pairs:
        said = processor.tokenizer(pair.answer)["input_ids"] + STOP
        chat = f"<|user|><image>{PROMPT.format(question=pair.question)}<|assistant|>"
        inputs = processor(images=[Image.open(pair.image)], text=[chat], return_tensors="pt")
        tokens = torch.cat([inputs["input_ids"], torch.tensor([said])], dim=1)
        with torch.no_grad():
            logits = model(input_ids=tokens, pixel_values=inputs["pixel_values"]).logits[0]
        chosen = logits.log_softmax(dim=-1)[-len(said) - 1 : -1]
        losses += (-chosen[range(len(said)), said]).tolist()
    return sum(losses) / len(losses)


# Rows and masks


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(tiny.WORDS), max_size=6), st.sampled_from([*ANSWERS, "<image>", "7.5 %"])),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["<pad>", "</s>"]),
)
def test_the_loss_is_on_the_answer_and_its_end_token_only(tmp_path_factory, rows, pad):
    processor = tiny.processor(pad)
    image = tiny.drawn(tmp_path_factory.getbasetemp() / "one", 1)[0]
    examples = [Example(image, " ".join(words), said) for words, said in rows]
    batch = AnswerCollator(processor, STOP)(examples)
    for example, tokens, labels, mask in zip(
        examples, batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        prompt = Prompter(processor).encode(read_image(image), example.prompt).tokens
        said = processor.tokenizer(example.answer.replace("<image>", "< image>"))["input_ids"]
        real = len(prompt) + len(said) + 1
        assert tokens[:real].tolist() == [*prompt, *said, processor.tokenizer.eos_token_id]
        assert labels[labels != -100].tolist() == [*said, processor.tokenizer.eos_token_id]
        assert labels[: len(prompt)].eq(-100).all()
        assert labels[len(prompt)] == said[0]
        assert mask.tolist() == [1] * real + [0] * (len(tokens) - real)


def test_a_training_row_is_the_chat_with_its_answer(images):
    processor = tiny.processor()
    content = [{"type": "image", "image": Image.open(images[0])}, {"type": "text", "text": "what"}]
    said = [{"type": "text", "text": "red"}]
    whole = processor.apply_chat_template(
        [{"role": "user", "content": content}, {"role": "assistant", "content": said}],
        tokenize=True,
        return_dict=True,
        return_tensors="np",
    )
    batch = AnswerCollator(processor, STOP)([Example(images[0], "what", "red")])
    assert batch["input_ids"].tolist() == whole["input_ids"].tolist()


@pytest.mark.parametrize(
    ("written", "stop", "end", "lead"),
    [
        ("{{ text }}</s>", [1, 5], 1, ""),
        ("{{ text }}<unk>\n", [1, 5], 5, ""),  # the template ends turns with another of the stop tokens
        ("{{ text }}<unk>", [1], 1, ""),  # ... or with one that would not stop generation
        ("  {{ text }} </s>", [1], 1, "  "),
        ("{{ text | upper }}!", [1], 1, ""),
        ("", [1], 1, ""),  # a template for questions only
    ],
)
def test_the_end_token_is_one_that_stops_generation(written, stop, end, lead):
    template = (
        "{% for message in messages %}{% set text = message['content'][-1]['text'] %}"
        "{% if message['role'] == 'user' %}<image>{{ text }}<|assistant|>{% else %}"
        + written
        + "{% endif %}{% endfor %}"
    )
    encoder = LabelEncoder(tiny.processor(chat_template=template), stop)
    assert (encoder.end_token, encoder.lead) == (end, lead)


def test_a_student_that_nothing_stops_is_refused():
    with pytest.raises(UserError, match="end token"):
        AnswerCollator(tiny.processor(), [])


def test_another_view_hangs_on_the_pair_and_the_visit_and_not_on_where_the_picture_lies(images, tmp_path):
    moved = shutil.copy(images[0], tmp_path / "moved.png")
    batches = AnswerCollator(tiny.processor(), STOP, views=True)

    def view(image, pair_id, visit=0):
        return batches([Example(str(image), "what", "red", pair_id)], visit)["view"]["pixel_values"]

    assert torch.equal(view(images[0], "a"), view(moved, "a"))
    assert not torch.equal(view(images[0], "a"), view(images[0], "b"))
    assert not torch.equal(view(images[0], "a"), view(images[0], "a", visit=1))


def test_the_image_cache_is_bounded_and_changes_nothing(images):
    processor = tiny.processor()
    examples = [Example(image, "what", "red") for image in images]
    size = 3 * tiny.SIDE**2
    small, large = AnswerCollator(processor, STOP, cache_bytes=2 * size), AnswerCollator(processor, STOP)
    for batches in (small, large):
        first, second = batches(examples), batches(examples)
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert torch.equal(first["pixel_values"], large(examples)["pixel_values"])
    assert (len(small._images), len(large._images)) == (2, len(images))


def test_pixels_are_those_of_the_processor_to_the_bit(images):
    processor = tiny.processor()
    seen = AnswerCollator(processor, STOP)([Example(images[0], "what", "red")])["pixel_values"]
    exact = processor.image_processor(Image.open(images[0]), return_tensors="pt")["pixel_values"]
    assert torch.equal(seen, exact)


# The objective


@pytest.fixture(scope="module")
def rows(student, pairs):
    model = student_module.open_student(student).eval()
    batches = AnswerCollator(open_processor(student), STOP)
    examples = [Example(pair.image, PROMPT.format(question=pair.question), pair.answer) for pair in pairs]
    return model, batches, examples


def test_the_loss_is_the_mean_over_tokens_whatever_the_batch(rows, student, pairs):
    model, batches, examples = rows
    with torch.no_grad():
        together = float(tiny.ANSWER(model, batches(examples)))
        alone = [
            (float(tiny.ANSWER(model, batches([one]))), len(batches.row_of(one).encoded.tokens)) for one in examples
        ]
    labelled = [sum(label != -100 for label in batches.row_of(one).encoded.per_token["labels"]) for one in examples]
    mean = sum(loss * count for (loss, _), count in zip(alone, labelled, strict=True)) / sum(labelled)
    assert together == pytest.approx(mean, abs=1e-4)
    assert together == pytest.approx(loss_on(student, pairs), abs=2e-3)


def test_a_blank_image_changes_the_loss(rows, tmp_path):
    model, batches, examples = rows
    Image.new("RGB", (40, 40)).save(tmp_path / "blank.png")
    blank = [Example(str(tmp_path / "blank.png"), one.prompt, one.answer) for one in examples]
    with torch.no_grad():
        assert abs(tiny.ANSWER(model, batches(examples)) - tiny.ANSWER(model, batches(blank))) > 1e-3


# Training


class Watching:
    """What is told of a training."""

    def __init__(self):
        self.steps, self.values = [], {}

    def __call__(self, *told):
        self.steps.append(told)

    def measured(self, what, step, value):
        self.values.setdefault(what, {})[step] = value


@pytest.fixture(scope="module")
def levelled(student, pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("levelled") / "student"
    watching = Watching()
    result = level(student, pairs, out, progress=watching)
    return out, result, watching


@pytest.mark.slow
def test_training_lowers_the_loss_on_the_trained_pairs(levelled, student, pairs):
    assert loss_on(levelled[0], pairs[:9]) < loss_on(student, pairs[:9]) - 1


@pytest.mark.slow
def test_the_result_tells_what_happened(levelled, student, pairs):
    out, result, told = levelled
    assert (result.steps, result.skipped_steps) == (12, 0)
    assert told.steps == [("level", step, 12) for step in range(1, 13)]
    held_out = told.values["held-out loss"]
    assert (held_out[0], min(held_out.values())) == (result.held_out_loss_before, result.held_out_loss_after)
    assert [*told.values["training loss"]] == [*range(1, 13)]
    assert all(0 < loss < math.inf for loss in told.values["training loss"].values())
    # bfloat16 in training where the processor has it, and half precision in the file
    assert result.held_out_loss_before == pytest.approx(loss_on(student, pairs[9:]), rel=0.02)
    assert result.held_out_loss_after == pytest.approx(loss_on(out, pairs[9:]), rel=0.02)


def test_the_student_stays_an_ordinary_folder_in_its_own_precision(levelled, student):
    out = levelled[0]
    model = AutoModelForImageTextToText.from_pretrained(out, dtype="auto")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float16}
    for name in ("config.json", "processor_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (out / name).read_text() == Path(student, name).read_text(), name
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.slow
def test_a_levelled_student_says_the_answers_it_was_taught(student, pairs, tmp_path):
    level(student, pairs, tmp_path / "out", epochs=40, learning_rate=1e-2, patience=100)
    model = hf.load(str(tmp_path / "out"))
    asked = [Request(pair.image, PROMPT.format(question=pair.question)) for pair in pairs]
    said = model.generate(asked, Decoding(8))
    assert said[:9] == [pair.answer for pair in pairs[:9]]


def test_statistics_of_batch_norm_are_left_alone_while_its_scale_learns(levelled, student):
    before, after = load_file(f"{student}/model.safetensors"), weights_of(levelled[0])
    statistics = [name for name in before if "running_" in name]
    scales = [name for name in before if "normalization.weight" in name]
    assert statistics and scales
    assert all(torch.equal(before[name], after[name]) for name in statistics)
    assert not any(torch.equal(before[name], after[name]) for name in scales)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(levelled, student, pairs, tmp_path):
    level(student, pairs, tmp_path / "out")
    assert same(weights_of(levelled[0]), weights_of(tmp_path / "out"))


class Ahead(ahead.Ahead):
    """Notes which micro-batches were there when they were needed."""

    def __init__(self, *given, room):
        super().__init__(*given)
        self.there, self._room = [], room

    def make(self, begun):
        made = self._batch
        self._batch = made if self._room else out_of_memory
        super().make(begun)
        self._batch = made

    def batch(self, part):
        self.there.append(self._known is not None)
        return super().batch(part)


def out_of_memory(_part):
    raise torch.OutOfMemoryError


@pytest.mark.parametrize("room", [True, False])
def test_steps_made_while_the_one_before_is_at_work_give_the_same_weights(
    levelled, student, pairs, tmp_path, monkeypatch, room
):
    """As on a GPU; also where memory runs out when they are made."""
    monkeypatch.setattr(trainer, "Ahead", partial(Ahead, room=room))
    found = []

    def working_ahead(*given):
        found.append(trainer_of(*given))
        found[0].works_ahead = True
        return found[0]

    trainer_of = train.trainer_of
    monkeypatch.setattr(train, "trainer_of", working_ahead)
    level(student, pairs, tmp_path / "out")
    assert same(weights_of(levelled[0]), weights_of(tmp_path / "out"))
    first_of_each_epoch = [step % 3 == 0 for step in range(12)]  # nothing has begun before
    assert found[0]._ahead.there == [room and not first for first in first_of_each_epoch]


def test_a_process_without_a_part_of_the_next_step_makes_nothing_of_it():
    made = ahead.Ahead(lambda begun: [], lambda rows: [], pytest.fail)
    made.make(None)
    assert made.rows(None) == []


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kills"), [("full", [1, 5, 12]), pytest.param("lora", [7], marks=pytest.mark.long)])
def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(student, pairs, tmp_path, method, kills):
    whole = level(student, pairs, tmp_path / "whole", method=method)

    def killer(at):
        def progress(_, done, __):
            if done == at:
                raise Killed

        return progress

    for step in kills:
        with pytest.raises(Killed):
            level(student, pairs, tmp_path / "out", method=method, progress=killer(step))
    done = []
    resumed = level(student, pairs, tmp_path / "out", method=method, progress=lambda *told: done.append(told[1]))
    assert done[0] > 2, "it should go on from a checkpoint"
    assert resumed == whole
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "out"))


@pytest.mark.slow
def test_questions_about_a_picture_come_in_one_step_in_one_row_and_after_a_kill_as_well(student, pairs, tmp_path):
    about_three = [pair.model_copy(update={"image": pairs[place % 3].image}) for place, pair in enumerate(pairs)]
    steps = []

    def notes(loss, batch):
        if loss.requires_grad:
            steps.append((len(batch["input_ids"]), len(batch.get("lengths", ()))))
        return loss

    def train_until(last, out):
        def progress(_, done, __):
            if done == last:
                raise Killed

        steps.clear()
        told = {"objective": tiny.Changed(notes), "progress": progress, "batch_size": 3, "questions_together": True}
        return leveller(student, **told)(about_three[:9], about_three[9:], tmp_path / out)

    whole = train_until(None, "whole")
    assert steps == [(1, 3)] * 12
    with pytest.raises(Killed):
        train_until(8, "out")
    assert train_until(None, "out") == whole and 0 < len(steps) < 12
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "out"))


@pytest.mark.long
def test_a_kill_while_a_checkpoint_or_the_student_is_written_does_no_harm(student, pairs, tmp_path, monkeypatch):
    whole = level(student, pairs, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(train, "save_student", killed)
        with pytest.raises(Killed):
            level(student, pairs, tmp_path / "out")
    checkpoints = tmp_path / ".out.training"
    (checkpoints / "checkpoint-12" / COMPLETE).unlink()
    (checkpoints / "checkpoint-12" / "trainer_state.json").write_text("{")
    assert level(student, pairs, tmp_path / "out") == whole
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "out"))


@pytest.mark.long
def test_checkpoints_of_another_training_are_not_gone_on_from(student, pairs, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(train, "save_student", killed)
        with pytest.raises(Killed):
            level(student, pairs, tmp_path / "out", learning_rate=1e-2)
    level(student, pairs, tmp_path / "whole")
    level(student, pairs, tmp_path / "out")
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "out"))


def contrary(pairs):
    """Held-out pairs that contradict what is trained on, so that training soon makes them worse."""
    return [pair.model_copy(update={"answer": "square"}) for pair in pairs]


@pytest.mark.slow
def test_training_stops_early_and_keeps_the_best_checkpoint(student, pairs, tmp_path):
    trained, held_out = pairs[:9], contrary(pairs[:9])
    result = leveller(student, epochs=30, patience=2)(trained, held_out, tmp_path / "out")
    assert 0 < result.best_step < result.steps < 90
    assert result.held_out_loss_after < result.held_out_loss_before
    assert loss_on(tmp_path / "out", held_out) == pytest.approx(result.held_out_loss_after, rel=0.02)


@pytest.mark.long
def test_a_training_that_had_stopped_early_is_not_gone_on_with(student, pairs, tmp_path, monkeypatch):
    trained, held_out = pairs[:9], contrary(pairs[:9])
    whole = leveller(student, epochs=30, patience=2)(trained, held_out, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(train, "save_student", killed)
        with pytest.raises(Killed):
            leveller(student, epochs=30, patience=2)(trained, held_out, tmp_path / "out")
    steps = []
    resume = leveller(student, epochs=30, patience=2, progress=lambda *told: steps.append(told))
    assert resume(trained, held_out, tmp_path / "out") == whole
    assert steps == []
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "out"))


@pytest.mark.slow
def test_a_student_that_did_not_get_better_stays_as_it_was(student, pairs, tmp_path):
    result = level(student, pairs, tmp_path / "out", objective=tiny.Changed(lambda loss, batch: loss * 0 + 1))
    assert (result.best_step, result.held_out_loss_after) == (0, 1.0)
    assert same(load_file(f"{student}/model.safetensors"), weights_of(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_steps_with_a_loss_that_is_not_finite_are_skipped_and_counted(student, pairs, tmp_path, bad):
    calls = []

    def spoil(loss, batch):
        calls.append(torch.is_grad_enabled())
        return loss * (bad if torch.is_grad_enabled() and sum(calls) in (2, 5) else 1)

    result = level(student, pairs, tmp_path / "out", objective=tiny.Changed(spoil))
    assert (result.steps, result.skipped_steps) == (12, 2)
    assert result.held_out_loss_after < result.held_out_loss_before
    assert all(torch.isfinite(tensor.float()).all() for tensor in weights_of(tmp_path / "out").values())


@pytest.mark.slow
def test_max_steps_decides_how_long_training_lasts(student, pairs, tmp_path):
    assert level(student, pairs, tmp_path / "few", max_steps=3).steps == 3
    many = level(student, pairs, tmp_path / "many", max_steps=17, epochs=1)
    assert (many.steps, many.best_step) == (17, 17), "the last step is measured too"


@pytest.mark.slow
def test_one_image_only_can_be_trained_on(student, pairs, tmp_path):
    assert leveller(student, epochs=1)(pairs[:1], [], tmp_path / "out").steps == 1


@pytest.mark.slow
def test_what_lay_in_the_folder_before_stays(student, pairs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".begun").touch()
    level(student, pairs, tmp_path / "out", max_steps=1)
    assert (tmp_path / "out" / ".begun").exists()
    assert hf.load(str(tmp_path / "out")).special_tokens


@pytest.mark.slow
def test_nothing_reaches_the_terminal(student, pairs, tmp_path, capfd):
    for method in ("full", "lora"):
        level(student, pairs, tmp_path / method, method=method, max_steps=2)
    assert capfd.readouterr() == ("", "")


# LoRA


def test_merged_weights_say_what_the_adapter_says(rows, student, tmp_path):
    _, batches, examples = rows
    adapted = student_module.add_lora(student_module.open_student(student), 4)
    for name, tensor in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor, std=0.05)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = student_module.merge_adapter(student_module.open_checkpoint(student, tmp_path / "adapter", adapter=True))
    batch = {key: value for key, value in batches(examples).items() if key != "labels"}
    with torch.no_grad():
        said, before = adapted.eval()(**batch).logits, student_module.open_student(student).eval()(**batch).logits
        torch.testing.assert_close(merged.eval()(**batch).logits, said, atol=1e-3, rtol=1e-4)
        assert (said - before).abs().max() > 0.1


@pytest.mark.slow
def test_lora_leaves_an_ordinary_folder_that_has_learnt(student, pairs, tmp_path):
    result = level(student, pairs, tmp_path / "out", method="lora", learning_rate=2e-2, lora_rank=4)
    assert result.held_out_loss_after < result.held_out_loss_before
    assert weights_of(tmp_path / "out").keys() == load_file(f"{student}/model.safetensors").keys()
    assert loss_on(tmp_path / "out", pairs[9:]) == pytest.approx(result.held_out_loss_after, rel=0.02)


def test_lora_without_peft_is_answered_with_the_install_line(student, pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'parityalign\[lora\]'"):
        level(student, pairs, tmp_path / "out", method="lora")


@pytest.mark.slow
def test_a_clip_tower_is_levelled_too(pairs, tmp_path):
    student = str(tiny.llava(tmp_path / "student"))
    result = level(student, pairs, tmp_path / "out")
    assert result.held_out_loss_after < result.held_out_loss_before
    shutil.rmtree(student)
    assert hf.load(str(tmp_path / "out")).generate([Request(pairs[0].image, "what")], Decoding(3))
