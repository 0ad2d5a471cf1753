"""The output head in chunks of tokens gives what it gives at once, and never holds all logits."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from parityalign.training.losses._chunks import over_chunks

TOKENS, WIDTH, VOCABULARY = 7, 5, 11


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make(*, bias=True, shape=(TOKENS, WIDTH)):
    hidden = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    return hidden, nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64)


def cross_entropy(labels):
    return lambda logits, place: functional.cross_entropy(logits, labels[place], reduction="none")


def gradients(losses, hidden, head):
    return torch.autograd.grad((losses * torch.arange(1.0, len(losses) + 1)).sum(), [hidden, *head.parameters()])


@pytest.mark.parametrize("rows", [1, 2, 3, TOKENS, TOKENS + 5])
@pytest.mark.parametrize("bias", [True, False])
def test_chunks_of_any_size_give_the_value_and_gradient_of_the_whole(rows, bias):
    hidden, head = make(bias=bias)
    labels = torch.randint(VOCABULARY, (TOKENS,))
    whole = cross_entropy(labels)(head(hidden), slice(None))
    chunked = over_chunks(hidden, head, cross_entropy(labels), rows)
    torch.testing.assert_close(chunked, whole)
    for got, wanted in zip(gradients(chunked, hidden, head), gradients(whole, hidden, head), strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_gradient_equals_finite_differences():
    hidden, head = make()
    loss_of = cross_entropy(torch.randint(VOCABULARY, (TOKENS,)))
    assert torch.autograd.gradcheck(lambda hidden: over_chunks(hidden, head, loss_of, 3), hidden)


def test_neither_pass_holds_the_logits_of_more_than_one_chunk():
    hidden, head = make()
    labels = torch.randint(VOCABULARY, (TOKENS,))
    seen, kept = [], []

    def loss_of(logits, place):
        seen.append(tuple(logits.shape))
        return cross_entropy(labels)(logits, place)

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = over_chunks(hidden, head, loss_of, 2)
    assert not [shape for shape in kept if VOCABULARY in shape and shape != head.weight.shape]
    losses.sum().backward()
    assert seen == [(2, VOCABULARY)] * 3 + [(1, VOCABULARY)] + [(1, VOCABULARY)] + [(2, VOCABULARY)] * 3


def test_no_token_at_all_gives_no_loss_and_a_zero_gradient():
    hidden, head = make(shape=(0, WIDTH))
    losses = over_chunks(hidden, head, cross_entropy(torch.empty(0, dtype=torch.long)), 4)
    assert losses.shape == (0,)
    losses.sum().backward()
    assert not head.weight.grad.any()


def test_nothing_is_computed_twice_without_gradients():
    hidden, head = make()
    calls = []

    def loss_of(logits, place):
        calls.append(place)
        return logits.logsumexp(-1)

    with torch.no_grad():
        losses = over_chunks(hidden, head, loss_of, 4)
    assert not losses.requires_grad
    assert len(calls) == 2


def test_two_views_of_a_token_go_through_the_head_together():
    hidden, head = make(shape=(TOKENS, 2, WIDTH))
    differences = over_chunks(hidden, head, lambda logits, _: (logits[:, 0] - logits[:, 1]).abs().sum(-1), 3)
    whole = (head(hidden[:, 0]) - head(hidden[:, 1])).abs().sum(-1)
    torch.testing.assert_close(differences, whole)


def test_weights_that_only_the_loss_knows_get_their_gradient():
    hidden, head = make()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    over_chunks(hidden, head, lambda logits, _: (scale * logits).logsumexp(-1), 3).sum().backward()
    chunked, scale.grad = scale.grad, None
    (scale * head(hidden)).logsumexp(-1).sum().backward()
    torch.testing.assert_close(chunked, scale.grad)


def test_a_drop_out_before_the_head_drops_the_same_in_both_passes():
    hidden, linear = make()
    head = nn.Sequential(nn.Dropout(0.5), linear)
    logits = []
    over_chunks(hidden, head, lambda part, _: logits.append(part.detach()) or part.logsumexp(-1), 4).sum().backward()
    forward, backward = logits[:2], logits[:1:-1]
    for first, second in zip(forward, backward, strict=True):
        torch.testing.assert_close(first, second)
