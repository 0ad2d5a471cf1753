"""What must hold on a GPU as on the CPU: decoding, observing, every term of the loss, training, a whole run.

The suite runs these on the CPU, `make test-gpu` on a GPU; what is expected transformers alone computes on the CPU.
"""

import json

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import tiny
from makers import mute
from parityalign import models, training
from parityalign.cli import run_commands
from parityalign.config import LevelSettings, LoadingSettings
from parityalign.core import Decoding, Request
from projects import done

pytestmark = pytest.mark.gpu

SINGLE = LoadingSettings(dtype="float32")
PROMPT = "{question}\nanswer"
END = 1
ANSWERS = ("red", "green", "blue square")
GREEDY, SAMPLED = Decoding(8), Decoding(8, temperature=1.0)
TERMS = ("answer", "confidence", "attention", "reasoning", "consistency", "coherence")


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """A GPU convolves in float32 where a test asks for float32; its products of matrices do so by default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.fast_vlm(tmp_path_factory.mktemp("student")))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(tiny.llava(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return tiny.pairs(tiny.drawn(tmp_path_factory.mktemp("images"), 8), ANSWERS)


@pytest.fixture(scope="module")
def signals(teacher, pairs):
    """What the teacher shows of each pair, a rationale of every second one, and one pair that counts twice."""
    seen = models.load_model(f"hf:{teacher}", SINGLE).observe([*zip(asked(pairs), said(pairs), strict=True)])
    told = {pair.pair_id: ("why?", f"Explanation: red. Answer: {pair.answer}") for pair in pairs[::2]}
    by_pair = {pair.pair_id: each for pair, each in zip(pairs, seen, strict=True)}
    return training.Signals(by_pair, {"1": 2.0}, told, "", lambda: models.open_processor(teacher))


def asked(pairs):
    return [Request(pair.image, PROMPT.format(question=pair.question), seed=n) for n, pair in enumerate(pairs)]


def said(pairs):
    return [pair.answer for pair in pairs]


def given_to_transformers(folder, request):
    processor = AutoProcessor.from_pretrained(folder)
    chat = f"<|user|><image>{request.prompt}<|assistant|>"
    return processor, processor(images=[Image.open(request.image)], text=[chat], return_tensors="pt")


def greedy_on_the_cpu(folder, request):
    """By transformers alone."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor, inputs = given_to_transformers(folder, request)
    written = model.generate(**inputs, do_sample=False, max_new_tokens=GREEDY.max_new_tokens)
    reply = written[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(reply[reply != END]).strip()


def log_probs_on_the_cpu(folder, request, answer):
    """Of the answer's tokens and the end token, by transformers alone."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    processor, inputs = given_to_transformers(folder, request)
    tokens = processor.tokenizer(answer)["input_ids"] + [END]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens])], dim=1)
    with torch.no_grad():
        logits = model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"]).logits[0]
    return logits.log_softmax(-1)[-len(tokens) - 1 : -1][range(len(tokens)), tokens]


def agree(one, other):
    """Whether the texts are the same; on a GPU one of them may turn on the last bit of a sum."""
    assert len(one) == len(other)
    return sum(a != b for a, b in zip(one, other, strict=True)) <= torch.cuda.is_available()


def level(student, pairs, out, objective, progress=mute, **choices):
    settings = LevelSettings(**{"batch_size": 4, "max_steps": 10, "learning_rate": 3e-3, "patience": 99} | choices)
    make = training.make_leveller(
        student, {"toy": PROMPT}, settings=settings, objective=objective, seed=3, progress=progress
    )
    return make(pairs[:6], pairs[6:], out)


def test_a_model_computes_where_there_is_a_gpu(student):
    place = models.load_model(f"hf:{student}").facts["device"]
    assert place.startswith("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_greedy_text_is_that_of_transformers_alone(role, student, teacher, pairs):
    folder = {"student": student, "teacher": teacher}[role]
    texts = models.load_model(f"hf:{folder}", SINGLE).generate(asked(pairs), GREEDY)
    assert agree(texts, [greedy_on_the_cpu(folder, request) for request in asked(pairs)])


def test_a_draw_hangs_on_its_seed_and_not_on_its_batch(student, pairs):
    model, requests = models.load_model(f"hf:{student}", SINGLE), asked(pairs)
    together = model.generate(requests, SAMPLED)
    assert agree(together, [model.generate([one], SAMPLED)[0] for one in requests])
    assert agree(together, model.generate(requests[::-1], SAMPLED)[::-1])
    assert together != model.generate(requests, GREEDY)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_a_model_shows_of_an_answer_is_what_transformers_alone_compute(role, student, teacher, pairs):
    folder = {"student": student, "teacher": teacher}[role]
    told = [*zip(asked(pairs), said(pairs), strict=True)]
    for (request, answer), seen in zip(told, models.load_model(f"hf:{folder}", SINGLE).observe(told), strict=True):
        expected = log_probs_on_the_cpu(folder, request, answer)
        assert torch.allclose(torch.from_numpy(seen.logprobs).float(), expected, atol=1e-2, rtol=2e-3)
        if seen.places.size:
            assert seen.places.astype(float).sum() == pytest.approx(1, abs=1e-2)


@pytest.mark.long
@pytest.mark.parametrize("term", TERMS)
def test_every_term_of_the_loss_is_learnt_and_leaves_a_student_that_opens_on_the_cpu(
    term, student, pairs, signals, tmp_path
):
    weights = {"answer": (1.0, 1.0), term: (1.0, 1.0)}
    result = level(student, pairs, tmp_path / "out", training.WeightedLoss(weights, signals=signals))
    assert result.held_out_loss_after < result.held_out_loss_before
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (student, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.isfinite(weight).all() and weight.dtype == before[name].dtype for name, weight in after.items())
    assert torch.isfinite(log_probs_on_the_cpu(tmp_path / "out", asked(pairs)[0], "red")).all()


@pytest.mark.slow
@pytest.mark.parametrize("choices", [{"method": "lora"}, {"gradient_checkpointing": True}, {"micro_batch_size": 1}])
def test_ways_of_training_come_to_a_better_student(choices, student, pairs, tmp_path):
    result = level(student, pairs, tmp_path / "out", tiny.ANSWER, **choices)
    assert result.held_out_loss_after < result.held_out_loss_before


@pytest.mark.long
def test_a_killed_training_goes_on_to_about_the_same_student(student, pairs, signals, tmp_path):
    objective = training.WeightedLoss({term: (0.5, 0.5) for term in TERMS}, signals=signals)

    def die(step, done, total):
        if done == 7:
            raise KeyboardInterrupt

    whole = level(student, pairs, tmp_path / "whole", objective)
    with pytest.raises(KeyboardInterrupt):
        level(student, pairs, tmp_path / "cut", objective, die)
    resumed = level(student, pairs, tmp_path / "cut", objective)
    assert resumed.steps == whole.steps
    assert resumed.held_out_loss_after == pytest.approx(whole.held_out_loss_after, rel=2e-2)


@pytest.mark.long
def test_a_run_on_the_discrepancy_of_real_models_goes_from_pictures_to_scores(tmp_path, monkeypatch):
    said = yaml.safe_load(run_commands.DEMO_CONFIG.read_text())
    said["tasks"] = {"textvqa": said["tasks"]["textvqa"]}
    said["annotate"]["pairs_per_image"] = 2
    said["level"] |= {"objective": "discrepancy", "epochs": 1, "max_steps": 2, "batch_size": 4}
    said["evaluate"] |= {"resamples": 100, "speed_questions": 4}
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(said))
    monkeypatch.setattr(run_commands, "DEMO_CONFIG", tmp_path / "demo.yaml")
    output = done("demo", "--run", tmp_path / "run", "--pictures", "10")
    made = json.loads((tmp_path / "run" / "student" / "manifest.json").read_text())
    assert made["result"]["steps"] == 2 and "discrepancy" in made["inputs"]
    assert "report.html" in output and (tmp_path / "run" / "scores.json").is_file()
    assert (tmp_path / "run" / "scores.json").is_file()
