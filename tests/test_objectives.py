"""The terms of the loss on tiny models of real classes: what is stored of a teacher teaches like the teacher itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

import tiny
from makers import mute
from parityalign.config.training import LevelSettings, needs_of
from parityalign.core.errors import UserError
from parityalign.core.records import Pair
from parityalign.core.registry import find_part, part_names
from parityalign.core.signals import read_shard, write_shard
from parityalign.models.backends._observing import Observing
from parityalign.models.encoding import read_image
from parityalign.models.labels import IGNORE_INDEX, LabelEncoder
from parityalign.models.loading import open_model, open_processor
from parityalign.models.stacking import stack
from parityalign.models.token_boxes import TokenBoxes, spread_over_cells
from parityalign.training import train
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.losses import _passes, coherence
from parityalign.training.losses._joining import Signals
from parityalign.training.weighted_loss import WeightedLoss

STOP = [1]
ANSWERS = ["red square", "blue", "7 up", "green green green"]
ALL = {"answer": (1.0, 1.0), "confidence": (0.5, 0.5), "attention": (0.25, 0.25)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(tiny.llava(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return str(tiny.fast_vlm(tmp_path_factory.mktemp("student")))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    images = tiny.drawn(tmp_path_factory.mktemp("images"), len(ANSWERS))
    return [
        (image, "what is the " + "shape " * place, answer)
        for place, (image, answer) in enumerate(zip(images, ANSWERS, strict=True))
    ]


def rows_of(folder: str, asked):
    encoder = LabelEncoder(open_processor(folder), STOP)
    return [
        encoder.encode(encoder.prompter.encode(read_image(image), prompt), prompt, answer)
        for image, prompt, answer in asked
    ]


def inputs_of(rows):
    return stack([row.encoded for row in rows], pad_token=0, side="right")


def observed(folder: str, asked):
    rows = rows_of(folder, asked)
    return Observing(open_model(folder), open_processor(folder)).observe(rows, inputs_of(rows))


def objective_of(weights, teacher: str, observations, **options) -> WeightedLoss:
    seen = {str(place): each for place, each in enumerate(observations)}
    signals = Signals(seen, options.pop("pairs", {}), {}, "", lambda: open_processor(teacher))
    return WeightedLoss(weights, signals=signals, **options)


def loss_of(objective: WeightedLoss, folder: str, asked, *, model=None, ids=None):
    rows, model = rows_of(folder, asked), model or open_model(folder)
    joined = objective.joiner(open_processor(folder))(ids or [str(place) for place in range(len(rows))], rows)
    with objective.recording_attention(model):
        return objective(model, inputs_of(rows) | joined)


def live(student: str, teacher: str, asked, weights, model=None) -> torch.Tensor:
    """The same loss with the teacher at hand and nothing rounded, each pair on its own."""
    ours, theirs = model or open_model(student), open_model(teacher)
    total, tokens = 0.0, 0
    for one in asked:
        (row,), (other,) = rows_of(student, [one]), rows_of(teacher, [one])
        ids = torch.tensor([label for label in row.encoded.per_token["labels"] if label != IGNORE_INDEX])
        logs, map_ = shown(ours, student, row, len(ids))
        wanted, wanted_map = shown(theirs, teacher, other, len(ids))
        wanted = wanted.detach()
        top = wanted.topk(16).indices
        p, q = classes(wanted, top), classes(logs, top)
        middle = (map_ + wanted_map) / 2
        js = sum((m * (m / middle).clamp_min(1e-30).log()).sum() for m in (map_, wanted_map)) / 2
        total = total + weights["answer"][0] * functional.nll_loss(logs, ids, reduction="sum")
        total = total + weights["confidence"][0] * (p.exp() * (p - q)).sum()
        total = total + weights["attention"][0] * js * len(ids)
        tokens += len(ids)
    return total / tokens


def classes(logs, top):
    """Log-probabilities of the listed tokens and of anything else."""
    listed = logs.gather(1, top)
    return torch.cat([listed, (1 - listed.exp().sum(1, keepdim=True)).log()], 1)


def shown(model, folder, row, count):
    """Log-probabilities and map, from a model that gives its whole attention itself."""
    model.set_attn_implementation({"text_config": "eager"})
    inputs = inputs_of([row])
    inputs.pop("labels")
    out = model(**inputs, output_attentions=True)
    layers = len(out.attentions)
    used = torch.stack(out.attentions[layers // 4 : layers - layers // 4]).mean(dim=(0, 2))[0]
    last = len(row.encoded.tokens) - 1
    placed = TokenBoxes(open_processor(folder)).locate(row.encoded.size, row.encoded.tokens)
    weights = used[last - count : last - 1].mean(dim=0)[placed.positions]
    cells = weights @ torch.from_numpy(spread_over_cells(placed.boxes)).float()
    return out.logits[0, last - count : last].log_softmax(-1), cells / cells.sum()


def test_answer_alone_is_the_mean_negative_log_likelihood_of_the_labelled_tokens(student, asked):
    rows, model = rows_of(student, asked), open_model(student)
    inputs = inputs_of(rows)
    labels = inputs["labels"]
    logits = model(**{key: value for key, value in inputs.items() if key != "labels"}).logits
    expected = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )
    assert torch.allclose(WeightedLoss({"answer": (1, 1)})(model, inputs), expected, atol=1e-6)


@pytest.mark.slow
def test_levelling_from_stored_signals_is_levelling_with_the_teacher_live(student, teacher, asked, tmp_path):
    write_shard(tmp_path / "shard", observed(teacher, asked))
    stored = loss_of(objective_of(ALL, teacher, read_shard(tmp_path / "shard")), student, asked)
    assert stored.item() == pytest.approx(live(student, teacher, asked, ALL).item(), rel=2e-3)


def test_gradients_from_stored_signals_are_those_with_the_teacher_live(student, teacher, asked):
    gradients = []
    for from_store in (True, False):
        model = open_model(student)
        if from_store:
            loss = loss_of(objective_of(ALL, teacher, observed(teacher, asked)), student, asked, model=model)
        else:
            loss = live(student, teacher, asked, ALL, model)
        loss.backward()
        gradients.append(torch.cat([w.grad.flatten() for w in model.get_decoder().parameters() if w.grad is not None]))
    assert functional.cosine_similarity(*gradients, dim=0) > 0.9999


@pytest.mark.parametrize("term", ["confidence", "attention"])
def test_a_student_that_is_its_own_teacher_has_nothing_to_lose(student, asked, term):
    objective = objective_of({term: (1, 1)}, student, observed(student, asked))
    assert loss_of(objective, student, asked).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("term", ["answer", "confidence", "attention"])
def test_batch_mates_padding_and_order_change_nothing(student, teacher, asked, term):
    objective = objective_of({term: (1, 1)}, teacher, observed(teacher, asked))
    together = loss_of(objective, student, asked)
    turned = loss_of(objective, student, asked[::-1], ids=["3", "2", "1", "0"])
    apart = [loss_of(objective, student, [one], ids=[str(place)]) for place, one in enumerate(asked)]
    tokens = [len(row.ends) for row in rows_of(student, asked)]
    mean = sum(loss * count for loss, count in zip(apart, tokens, strict=True)) / sum(tokens)
    assert torch.allclose(together, turned, atol=1e-6)
    assert torch.allclose(together, mean, atol=1e-6)


def test_a_pair_without_signals_costs_nothing_but_its_answer(student, teacher, asked):
    seen = observed(teacher, asked)
    every = objective_of({"confidence": (1, 1), "attention": (1, 1)}, teacher, seen)
    none = loss_of(every, student, asked, ids=["a", "b", "c", "d"])
    assert none.item() == 0


TOLD = {"0": "Explanation: red Answer: red square", "2": "Explanation: blue Answer: 7 up"}


def coherence_of(student, asked, ids, model=None):
    """The term on the pairs of these numbers, of which those in `TOLD` are explained."""
    told = {name: ("why?", text) for name, text in TOLD.items()}
    objective = WeightedLoss({"coherence": (1, 1)}, signals=Signals({}, {}, told, "", None))
    batches = AnswerCollator(open_processor(student), STOP)
    examples = [Example(*asked[int(name)], name, *objective.rationale(name)) for name in ids]
    return objective(model or open_model(student), batches(examples))


def test_coherence_compares_each_answer_with_the_same_answer_behind_its_rationale(student, asked):
    model, total, tokens = open_model(student), 0.0, 0
    for name, (image, prompt, answer) in zip("0123", asked, strict=True):
        (row,) = rows_of(student, [(image, prompt, answer)])
        count = len(row.ends)
        tokens += count
        if name in TOLD:
            (told,) = rows_of(student, [(image, "why?", TOLD[name])])
            one, other = (shown(model, student, each, count)[0].exp() for each in (row, told))
            middle = ((one + other) / 2).log()
            total += (one * (one.log() - middle) + other * (other.log() - middle)).sum().item() / 2
    assert total > 0
    assert coherence_of(student, asked, "0123").item() == pytest.approx(total / tokens, rel=1e-4)


def test_coherence_costs_nothing_without_a_rationale(student, asked):
    assert coherence_of(student, asked, "1").item() == 0
    assert coherence_of(student, asked, "13").item() == 0


def test_an_answer_whose_beginning_is_cut_differently_behind_a_rationale_is_compared_from_where_it_is_cut_alike():
    answers = SimpleNamespace(labels=torch.tensor([5, 6, 1, 7, 1]), lengths=torch.tensor([3, 2]))
    explained = SimpleNamespace(labels=torch.tensor([9, 9, 15, 6, 1, 9, 7, 1]), lengths=torch.tensor([5, 3]))
    here, there = coherence._same_tokens(answers, explained, torch.tensor([0, 1]))
    assert (here.tolist(), there.tolist()) == ([1, 2, 3, 4], [3, 4, 6, 7])


def test_coherence_does_not_hang_on_batch_mates_or_order(student, asked):
    tokens = [len(row.ends) for row in rows_of(student, asked)]
    alone = [coherence_of(student, asked, name) for name in "0123"]
    mean = sum(loss * count for loss, count in zip(alone, tokens, strict=True)) / sum(tokens)
    for ids in ("0123", "3120"):
        assert torch.allclose(coherence_of(student, asked, ids), mean, atol=1e-6)


def test_weights_of_pairs_count(student, teacher, asked):
    seen = observed(teacher, asked)
    whole = loss_of(objective_of(ALL, teacher, seen), student, asked)
    doubled = loss_of(objective_of(ALL, teacher, seen, pairs=dict.fromkeys("0123", 2.0)), student, asked)
    assert torch.allclose(doubled, 2 * whole)


def test_a_schedule_leads_from_one_weight_to_the_other(student, asked):
    rows, model = rows_of(student, asked), open_model(student)
    objective = WeightedLoss({"answer": (2.0, 0.0)})
    losses = [objective(model, inputs_of(rows), done).item() for done in (0, 0.5, 1)]
    assert losses == pytest.approx([losses[0], losses[0] / 2, 0])


def test_long_vocabularies_in_chunks_give_the_same_loss_and_gradient(student, teacher, asked, monkeypatch):
    found = []
    for whole in (2**25, 300):
        monkeypatch.setattr(_passes, "MOST_LOGITS", whole)
        model = open_model(student)
        loss = loss_of(objective_of(ALL, teacher, observed(teacher, asked)), student, asked, model=model)
        loss.backward()
        found.append((loss.item(), model.get_decoder().layers[0].mlp.up_proj.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize("term", part_names("losses"))
def test_what_settings_read_of_a_terms_needs_is_what_its_module_says(term):
    assert needs_of(term) == getattr(find_part("losses", term), "NEEDS", frozenset())


def test_a_terms_own_settings_change_its_loss(student, teacher, asked):
    seen = observed(teacher, asked)
    losses = [
        loss_of(objective_of({"confidence": (1, 1)}, teacher, seen, settings=own), student, asked).item()
        for own in ({}, {"confidence": {"divergence": "forward"}}, {"confidence": {"divergence": "reverse"}})
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (
            {"confidence": {"divergense": "reverse"}},
            "confidence.divergense'. Did you mean divergence?",
        ),
        (
            {"confidence": {"divergence": "revers"}},
            "confidence.divergence' is 'revers': input should be 'forward', 'reverse'",
        ),
        ({"answer": {"smoothing": 0.1}}, "unknown setting 'level.objective.answer.smoothing'. Known: none."),
    ],
)
def test_settings_that_a_term_does_not_take_are_refused(own, said):
    with pytest.raises(UserError) as refused:
        WeightedLoss({"answer": (1, 1), "confidence": (1, 1)}, settings={"answer": {}, **own})
    assert said in str(refused.value)


def test_what_a_model_shows_is_what_it_shows_alone(teacher, asked):
    together, alone = observed(teacher, asked), [observed(teacher, [one])[0] for one in asked]
    for one, other in zip(together, alone, strict=True):
        for name in ("logprobs", "top_logprobs", "tail", "places"):
            assert np.allclose(getattr(one, name), getattr(other, name), atol=2e-3)
        assert one.ids.tolist() == other.ids.tolist()
        assert one.places.astype(float).sum() == pytest.approx(1, abs=5e-3)
        assert np.allclose(np.exp(one.top_logprobs.astype(float)).sum(1) + np.exp(one.tail.astype(float)), 1, atol=5e-3)


def test_checkpointing_changes_no_gradient_though_several_passes_are_run_again(student, teacher, asked):
    told = {name: ("why?", text) for name, text in TOLD.items()}
    seen = dict(zip("0123", observed(teacher, asked), strict=True))
    signals = Signals(seen, {}, told, "", lambda: open_processor(teacher))
    weights = {**ALL, "reasoning": (1.0, 1.0), "consistency": (1.0, 1.0), "coherence": (1.0, 1.0)}
    objective, gradients = WeightedLoss(weights, signals=signals), []
    processor = open_processor(student)
    batches = AnswerCollator(processor, STOP, join=objective.joiner(processor), views=True)
    examples = [Example(*one, name, *objective.rationale(name)) for name, one in zip("0123", asked, strict=True)]
    for checkpointed in (False, True):
        model = open_model(student)
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.get_decoder().train()
        with objective.recording_attention(model):
            for _ in range(2):
                objective(model, batches(examples)).backward()
        gradients.append(torch.cat([w.grad.flatten() for w in model.get_decoder().parameters() if w.grad is not None]))
    assert gradients[0].abs().max() > 0
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("checkpointed", [False, True])
def test_levelling_on_all_terms_lowers_their_sum_and_goes_on_after_a_kill_as_if_there_was_none(
    student, teacher, tmp_path, checkpointed
):
    pairs = [
        Pair(pair_id=str(place), image_id=image, image=image, task="toy", question="what", answer=answer, teacher="t")
        for place, (image, answer) in enumerate(zip(tiny.drawn(tmp_path, 8), ANSWERS * 2, strict=True))
    ]
    seen = observed(teacher, [(pair.image, "what", pair.answer) for pair in pairs])
    told = {pair.pair_id: ("why?", f"Explanation: red. Answer: {pair.answer}") for pair in pairs[::2]}
    signals = Signals(dict(zip("01234567", seen, strict=True)), {"1": 2.0}, told, "", lambda: open_processor(teacher))
    weights = {**ALL, "reasoning": (0.5, 0.1), "consistency": (0.5, 0.5), "coherence": (0.5, 0.5)}

    def level(out, progress=mute):
        settings = LevelSettings(
            batch_size=4, max_steps=12, learning_rate=3e-3, patience=99, gradient_checkpointing=checkpointed
        )
        objective = WeightedLoss(weights, signals=signals)
        make = train.make_leveller(
            student, {"toy": "{question}"}, settings=settings, objective=objective, seed=0, progress=progress
        )
        return make(pairs[:6], pairs[6:], out)

    def die(step, done, total):
        if done == 7:
            raise KeyboardInterrupt

    whole = level(tmp_path / "whole")
    assert whole.held_out_loss_after < whole.held_out_loss_before
    with pytest.raises(KeyboardInterrupt):
        level(tmp_path / "cut", die)
    assert level(tmp_path / "cut") == whole
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(first[name], second[name]) for name in first)
