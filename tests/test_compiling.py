"""Compiled layers learn what the layers as they are written learn, only in training, and are gone when it ends."""

import pytest
import torch

import families
import tiny
from makers import mute
from parityalign.config.automatic import decide_level
from parityalign.config.loading import LoadingSettings
from parityalign.config.training import LevelSettings
from parityalign.models.loading import open_model
from parityalign.training import compiling, train, trainer
from parityalign.training.collator import Example


def trainer_of(folder, student, **settings):
    """A trainer, and examples of a step: two questions about each of three pictures."""
    pairs = tiny.pairs(tiny.drawn(folder / "images", 4), ("red", "green blue", "a"))
    examples = [
        Example(pair.image, f"{pair.question} {'and ' * more}", pair.answer) for pair in pairs for more in (1, 3)
    ]
    level = decide_level(LevelSettings(batch_size=6, **settings), None)
    training = trainer.Training(student, LoadingSettings(), level, tiny.ANSWER, 0, mute, examples[:6], examples[6:])
    found = train.trainer_of(training, folder)
    found.current_gradient_accumulation_steps = 1
    return found, examples[:6]


@pytest.fixture
def made(tmp_path):
    return trainer_of(tmp_path, str(tiny.fast_vlm(tmp_path / "student")))


def gradients(made, examples):
    made.model.zero_grad()
    made.training_step(made.model, made.data_collator(examples))
    return [weight.grad.clone() for weight in made.model.parameters() if weight.grad is not None]


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("eager", {}),  # follows the layers as the compiler does, and makes nothing of them
        pytest.param("aot_eager", {}, marks=pytest.mark.long),  # the same of the backward pass
        pytest.param("aot_eager", {"method": "lora"}, marks=pytest.mark.long),
        pytest.param("aot_eager", {"gradient_checkpointing": True}, marks=pytest.mark.long),
    ],
)
def test_compiled_layers_give_the_gradients_of_those_as_written(tmp_path, backend, settings):
    made, examples = trainer_of(tmp_path, str(tiny.fast_vlm(tmp_path / "student")), **settings)
    plain, told = gradients(made, examples), []
    looked = made.held_out_loss()
    with compiling.compiled_layers(made.model, made.trial_step, told.append, wanted=True, backend=backend) as compiled:
        assert compiled and told == ["compiling the student's layers, which takes about a minute"]
        counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        fast = gradients(made, examples)
        alone = gradients(made, examples[:1])
        assert made.held_out_loss() == looked
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - counted <= 2 * counted
    assert len(plain) == len(fast) and all(map(torch.allclose, fast, plain))
    assert all(map(torch.equal, gradients(made, examples), plain))
    assert all(map(torch.allclose, gradients(made, examples[:1]), alone))


def test_towers_that_read_lengths_of_pictures_stay_as_they_are_written(tmp_path):
    """There a compiled graph breaks, and is compiled anew for each number of pictures."""
    qwen = next(family for family in families.FAMILIES if family.name == "Qwen2-VL")
    model = open_model(str(families.write(tmp_path, qwen)))
    kinds = {type(layer).__name__ for layer in compiling._repeated(model)}
    assert kinds == {"Qwen2VLDecoderLayer"}


def broken(graph, inputs):
    raise RuntimeError("no such kernel\nand more")


def mistaken(graph, inputs):
    return lambda *given: [torch.nan * each if each.is_floating_point() else each for each in graph(*given)]


@pytest.mark.parametrize(("backend", "said"), [(broken, "no such kernel"), (mistaken, "the loss is nan compiled and")])
def test_what_cannot_be_compiled_is_trained_as_it_is_written(made, backend, said):
    trained, examples = made
    plain, told = gradients(trained, examples), []
    layers = [module for module in trained.model.modules() if "forward" in vars(module)]
    with compiling.compiled_layers(
        trained.model, trained.trial_step, told.append, wanted=True, backend=backend
    ) as compiled:
        assert not compiled
        assert all(map(torch.equal, gradients(trained, examples), plain))
    assert len(told) == 2 and told[1].startswith("the student's layers are not compiled: ")
    assert said in told[1] and "\n" not in told[1]
    assert layers == [module for module in trained.model.modules() if "forward" in vars(module)]


def test_a_trial_leaves_neither_gradients_nor_other_random_numbers(made):
    trained, _ = made
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert trained.trial_step() > 0 and torch.equal(torch.rand(1), expected)
    assert all(weight.grad is None for weight in trained.model.parameters())


def test_a_trial_that_memory_does_not_hold_is_tried_smaller(made):
    (trained, _), sizes = made, []
    batches = trained.batches.batch

    def batch(bundles, sharing):
        sizes.append(sum(len(bundle.rows) for bundle in bundles))
        if sizes[-1] > 2:
            raise MemoryError
        return batches(bundles, sharing)

    trained.batches.batch = batch
    assert trained.trial_step() > 0 and sizes[0] > 2 >= sizes[-1]


def test_layers_whose_backward_pass_fails_later_are_trained_as_they_are_written(made, monkeypatch):
    trained, examples = made
    plain, told, fails = gradients(trained, examples), [], []

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(_context, tensor):
            return tensor.view_as(tensor)

        @staticmethod
        def backward(_context, gradient):
            if fails:
                raise RuntimeError("no kernel for this shape")
            return gradient

    def backend(graph, inputs):
        return lambda *given: [Identity.apply(each) if each.is_floating_point() else each for each in graph(*given)]

    with compiling.compiled_layers(
        trained.model, trained.trial_step, told.append, wanted=True, backend=backend
    ) as trained.compiled:
        assert trained.compiled and all(map(torch.allclose, gradients(trained, examples), plain))
        fails.append(True)
        assert all(map(torch.equal, gradients(trained, examples), plain))
    assert told[1:] == ["the student's layers are not compiled: RuntimeError: no kernel for this shape"]
    assert trained.compiled is None


@pytest.mark.parametrize(
    ("settings", "steps", "there", "worth"),
    [
        ({"method": "full"}, 200, True, True),
        ({"method": "full"}, 199, True, False),
        ({"method": "qlora"}, 5000, True, False),
        ({"compile": True}, 5, True, True),
        ({"compile": True}, 0, True, False),
        ({"compile": False}, 5000, True, False),
        ({"compile": True}, 5000, False, False),
        ({"compile": True, "objective": {"answer": 1, "attention": 1}}, 5000, True, False),
    ],
)
def test_layers_are_compiled_where_training_wins_it_back(settings, steps, there, worth, monkeypatch):
    monkeypatch.setattr(compiling, "_there", lambda: there)
    level = decide_level(LevelSettings(**settings), None)
    assert compiling.worth_compiling(level, steps) is worth
