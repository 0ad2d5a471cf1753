"""What every term keeps: zero for equals, finite in extremes, blind to what is masked, its gradient the true one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance
from scipy.special import log_softmax, logsumexp, rel_entr
from torch import nn

from parityalign.training.losses._chunks import over_chunks
from parityalign.training.losses._divergences import (
    DIVERGENCES,
    TopTokens,
    attention_divergence,
    class_logprobs,
    token_divergence,
    view_divergence,
)
from parityalign.training.losses._reductions import pair_means

QUICK = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
each_divergence = pytest.mark.parametrize("divergence", DIVERGENCES.values(), ids=DIVERGENCES.keys())


def drawn(seed, *shape, spread=3.0, dtype=torch.float64):
    return spread * torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def top_tokens(logits, k, dtype=None):
    """What a teacher with these logits would leave, computed with numpy over the whole vocabulary."""
    everything = log_softmax(logits.double().numpy(), axis=-1)
    order = np.argsort(-everything, axis=-1, kind="stable")
    listed, rest = np.take_along_axis(everything, order, 1)[:, :k], np.take_along_axis(everything, order, 1)[:, k:]
    with np.errstate(divide="ignore"):
        tail = logsumexp(rest, axis=-1) if rest.shape[1] else np.full(len(everything), -np.inf)
    as_stored = lambda values: torch.from_numpy(np.asarray(values)).to(dtype or torch.float64)  # noqa: E731
    return TopTokens(torch.from_numpy(order[:, :k].copy()), as_stored(listed), as_stored(tail))


def by_hand(student, teacher, shared, name):
    """The divergence from plain probabilities, class by class."""
    everything = np.exp(log_softmax(student[:, :shared].numpy(), axis=-1))
    losses = []
    for row, (ids, logprobs, tail) in enumerate(zip(teacher.ids, teacher.logprobs, teacher.tail, strict=True)):
        known = [column for column, token in enumerate(ids.tolist()) if 0 <= token < shared]
        wanted = np.exp([float(logprobs[column]) for column in known])
        wanted = np.append(wanted, math.exp(tail) + sum(math.exp(x) for x in logprobs.tolist()) - wanted.sum())
        wanted = np.maximum(wanted, 0) / wanted.sum()
        own = everything[row, [int(ids[column]) for column in known]]
        own = np.append(own, max(1 - own.sum(), 0))
        pairs = {"forward": (wanted, own), "reverse": (own, wanted)}
        if name == "jensen_shannon":
            losses.append(distance.jensenshannon(wanted, own) ** 2)
        else:
            losses.append(rel_entr(*pairs[name]).sum())
    return torch.tensor(losses)


# --- Tokens


@QUICK
@given(seeds, st.sampled_from(sorted(DIVERGENCES)), st.integers(1, 6), st.integers(7, 12))
def test_each_divergence_equals_one_from_plain_probabilities(seed, name, k, shared):
    student, teacher = drawn(seed, 4, 12), top_tokens(drawn(seed + 1, 4, 13), k)
    got = token_divergence(student, teacher, shared=shared, divergence=DIVERGENCES[name])
    torch.testing.assert_close(got, by_hand(student, teacher, shared, name), rtol=1e-6, atol=1e-9)


@each_divergence
@pytest.mark.parametrize("stored", [torch.float64, torch.float32])
def test_a_student_that_equals_the_teacher_costs_nothing_and_is_left_alone(divergence, stored):
    logits = drawn(1, 5, 20).requires_grad_()
    losses = token_divergence(logits, top_tokens(logits.detach(), 4, stored), shared=20, divergence=divergence)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.abs().max() < 1e-7
    assert gradient.abs().max() < 1e-6


@each_divergence
def test_only_the_listed_tokens_and_the_rest_as_a_whole_are_compared(divergence):
    logits = drawn(2, 1, 10)
    teacher = top_tokens(logits, 3)
    unlisted = [token for token in range(10) if token not in teacher.ids[0].tolist()]
    shuffled = logits.clone()
    shuffled[:, unlisted] = logits[:, unlisted[1:] + unlisted[:1]]
    raised = logits.clone()
    raised[:, unlisted[0]] += 1
    assert float(token_divergence(shuffled, teacher, shared=10, divergence=divergence)) < 1e-12
    assert float(token_divergence(raised, teacher, shared=10, divergence=divergence)) > 1e-6


@QUICK
@given(seeds, st.sampled_from(sorted(DIVERGENCES)))
def test_divergences_are_never_negative_and_jensen_shannon_at_most_ln_2(seed, name):
    student, teacher = drawn(seed, 6, 9, spread=20.0), top_tokens(drawn(seed + 1, 6, 9, spread=20.0), 3)
    losses = token_divergence(student, teacher, shared=9, divergence=DIVERGENCES[name])
    assert losses.min() >= -1e-9
    assert name != "jensen_shannon" or losses.max() <= math.log(2) + 1e-9


@each_divergence
def test_the_gradient_for_tokens_equals_finite_differences(divergence):
    logits, teacher = drawn(3, 3, 8).requires_grad_(), top_tokens(drawn(4, 3, 8), 3)
    assert torch.autograd.gradcheck(lambda x: token_divergence(x, teacher, shared=7, divergence=divergence), logits)


@each_divergence
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_logits_and_signals_cost_a_finite_amount_with_a_finite_gradient(divergence, dtype):
    never = -math.inf
    logits = torch.tensor(
        [
            [1e4, -1e4, 0, 0],
            [-1e4, 1e4, 1e4, -1e4],
            [never, 0, 0, 0],
            [0, 0, never, never],
            [0, 0, 0, 0],
            [1e4] * 4,
            [never] * 3 + [0],
        ],
        dtype=dtype,
    ).requires_grad_()
    ids = torch.tensor([[1, 0], [0, 3], [0, 1], [0, 1], [2, 3], [1, 2], [3, -1]])
    logprobs = torch.tensor([[0, -50], [-0.7, -0.7], [0, never], [-1, -1], [never, never], [0, -65504], [0, never]])
    tail = torch.tensor([never, never, never, -1.3, 0, never, never])
    teacher = TopTokens(ids, logprobs.half(), tail.half())
    losses = token_divergence(logits, teacher, shared=4, divergence=divergence)
    losses.sum().backward()
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()


@each_divergence
def test_where_every_token_of_the_student_is_listed_nothing_is_left_for_the_rest(divergence):
    logits = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    teacher = TopTokens(
        torch.tensor([[0, 1, -1]]), logits.detach().log_softmax(1).repeat(1, 2)[:, :3], torch.tensor([0.0])
    )
    teacher.logprobs[0, 2] = teacher.tail[0] = -math.inf
    loss = token_divergence(logits, teacher, shared=2, divergence=divergence)
    loss.sum().backward()
    assert loss.abs().max() < 1e-12
    assert logits.grad.abs().max() < 1e-9


def test_a_student_that_is_sure_and_wrong_is_still_pulled_back():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    teacher = TopTokens(torch.tensor([[1]]), torch.tensor([[0.0]]), torch.tensor([-math.inf]))
    token_divergence(logits, teacher, shared=2).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0]]))


def test_the_rest_keeps_its_digits_where_the_student_is_sure():
    logits = torch.tensor([[60.0, 0.0, 0.0]])
    listed, rest = class_logprobs(logits, torch.tensor([[0]]), 3)[0]
    assert float(rest) == pytest.approx(math.log(2) - 60)
    assert float(listed) == 0


@each_divergence
def test_a_row_without_signals_costs_nothing_and_has_no_gradient(divergence):
    logits = drawn(5, 2, 6).requires_grad_()
    nothing = TopTokens(torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), -math.inf), torch.full((2,), -math.inf))
    losses = token_divergence(logits, nothing, shared=6, divergence=divergence)
    losses.sum().backward()
    assert not losses.any()
    assert not logits.grad.any()


def test_damaged_signals_are_not_taken_for_none():
    damaged = TopTokens(torch.tensor([[0]]), torch.tensor([[math.nan]]), torch.tensor([0.0]))
    assert token_divergence(torch.zeros(1, 3), damaged, shared=3).isnan().all()
    whole, broken = torch.ones(1, 4), torch.full((1, 4), math.nan)
    assert attention_divergence(whole, broken).isnan().all()
    assert attention_divergence(broken, whole).isnan().all()


@each_divergence
def test_no_token_at_all_gives_no_loss(divergence):
    nothing = TopTokens(torch.empty(0, 3, dtype=torch.long), torch.empty(0, 3), torch.empty(0))
    assert token_divergence(torch.empty(0, 5), nothing, shared=5, divergence=divergence).shape == (0,)


# --- Unequal vocabularies


@each_divergence
def test_output_heads_of_151936_and_152064_rows_are_compared_over_the_151643_tokens_that_both_have(divergence):
    student, teacher = drawn(6, 2, 151_936), drawn(7, 2, 152_064)
    teacher[:, 151_643:] = -30.0  # padding rows
    stored = top_tokens(teacher, 8)
    got = token_divergence(student, stored, shared=151_643, divergence=divergence)
    other_padding = student.clone()
    other_padding[:, 151_643:] = 40.0
    again = token_divergence(other_padding, stored, shared=151_643, divergence=divergence)
    as_the_teacher = token_divergence(teacher[:, :151_936], stored, shared=151_643, divergence=divergence)
    name = next(name for name, known in DIVERGENCES.items() if known is divergence)
    torch.testing.assert_close(got, by_hand(student, stored, 151_643, name), rtol=1e-6, atol=1e-9)
    assert torch.equal(got, again)
    assert as_the_teacher.max() < 1e-9


def test_what_the_student_cannot_say_counts_to_anything_else():
    student = drawn(8, 1, 6)
    stored = TopTokens(torch.tensor([[2, 9, -1]]), torch.tensor([[0.4, 0.3, 0.2]]).log(), torch.tensor([0.1]).log())
    folded = TopTokens(torch.tensor([[2]]), torch.tensor([[0.4]]).log(), torch.tensor([0.6]).log())
    torch.testing.assert_close(token_divergence(student, stored, shared=6), token_divergence(student, folded, shared=6))


# --- Chunks, order, neighbours


@each_divergence
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_chunked_equals_unchunked_in_value_and_gradient(divergence, rows):
    hidden, teacher = drawn(9, 8, 4).requires_grad_(), top_tokens(drawn(10, 8, 15), 4)
    head = nn.Linear(4, 15, dtype=torch.float64)

    def loss_of(logits, place):
        return token_divergence(logits, teacher[place], shared=14, divergence=divergence)

    weights = torch.arange(1.0, 9)
    whole, chunked = loss_of(head(hidden), slice(None)), over_chunks(hidden, head, loss_of, rows)
    torch.testing.assert_close(chunked, whole)
    sources = [hidden, *head.parameters()]
    wanted = torch.autograd.grad((whole * weights).sum(), sources)
    for got, one in zip(torch.autograd.grad((chunked * weights).sum(), sources), wanted, strict=True):
        torch.testing.assert_close(got, one)


@each_divergence
def test_a_token_s_loss_does_not_depend_on_the_others_in_the_batch(divergence):
    logits, teacher = drawn(11, 6, 9), top_tokens(drawn(12, 6, 9), 3)
    together = token_divergence(logits, teacher, shared=9, divergence=divergence)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    shuffled = token_divergence(logits[order], teacher[order], shared=9, divergence=divergence)
    alone = [token_divergence(logits[i : i + 1], teacher[i : i + 1], shared=9, divergence=divergence) for i in range(6)]
    torch.testing.assert_close(shuffled, together[order])
    torch.testing.assert_close(torch.cat(alone), together)


def test_losses_are_in_float32_where_the_model_runs_in_bfloat16():
    hidden, head = drawn(26, 4, 3, dtype=torch.float32).requires_grad_(), nn.Linear(3, 30)
    teacher = top_tokens(drawn(27, 4, 30), 4, torch.float16)
    loss_of = lambda logits, place: token_divergence(logits, teacher[place], shared=30)  # noqa: E731
    with torch.autocast("cpu", torch.bfloat16):
        chunked, whole = over_chunks(hidden, head, loss_of, 3), loss_of(head(hidden), slice(None))
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, whole)
    gradients = [torch.autograd.grad(losses.sum(), hidden)[0] for losses in (chunked, whole)]
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(chunked, loss_of(head(hidden), slice(None)), rtol=0.05, atol=0.05)


def test_signals_that_do_not_quite_sum_to_1_are_normalised():
    student, exact = drawn(28, 3, 9), top_tokens(drawn(29, 3, 9), 3)
    rounded = TopTokens(exact.ids, exact.logprobs + 0.01, exact.tail + 0.01)
    torch.testing.assert_close(token_divergence(student, rounded, shared=9), token_divergence(student, exact, shared=9))


def test_signals_in_half_precision_change_a_loss_by_a_thousandth_only():
    student, teacher = drawn(13, 20, 50), drawn(14, 20, 50)
    exact = token_divergence(student, top_tokens(teacher, 8), shared=50)
    stored = token_divergence(student, top_tokens(teacher, 8, torch.float16), shared=50)
    torch.testing.assert_close(stored, exact, rtol=2e-3, atol=2e-3)


# --- Attention


@QUICK
@given(seeds, st.floats(1e-6, 1e6), st.floats(0, 0.9))
def test_attention_is_compared_as_shares_of_the_picture(seed, scale, empty):
    maps = torch.rand(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    maps = torch.where(maps > empty, maps, 0.0)
    maps[:, :, 3] += 0.01
    got = attention_divergence(scale * maps[0], maps[1])
    wanted = [distance.jensenshannon(one, other) ** 2 for one, other in zip(*maps.numpy(), strict=True)]
    torch.testing.assert_close(got, torch.tensor(wanted), rtol=1e-6, atol=1e-9)


def test_maps_that_look_at_the_same_places_cost_nothing_and_apart_ones_ln_2():
    here, there = torch.eye(4)[:2], torch.eye(4)[2:]
    assert attention_divergence(3 * here, here).abs().max() < 1e-6
    torch.testing.assert_close(attention_divergence(here, there), torch.full((2,), math.log(2)))


def test_the_gradient_for_attention_equals_finite_differences():
    student, teacher = (drawn(seed, 3, 6).softmax(-1) for seed in (15, 16))
    assert torch.autograd.gradcheck(lambda x: attention_divergence(x, teacher), student.requires_grad_())


@pytest.mark.parametrize("lost", [0.0, 1e-20])
def test_a_row_without_a_map_costs_nothing_and_has_no_gradient(lost):
    student, teacher = torch.rand(3, 49), torch.rand(3, 49)
    student[0], teacher[1] = lost, lost
    student.requires_grad_()
    losses = attention_divergence(student, teacher)
    losses.sum().backward()
    assert losses[:2].tolist() == [0, 0]
    assert not student.grad[:2].any()
    assert losses[2] > 0
    assert torch.isfinite(student.grad).all()
    assert student.grad[2].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_empty_cells_have_a_finite_gradient(dtype):
    student = torch.tensor([[1, 0, 0, 0], [0, 0.5, 0.5, 0], [6e-8, 1, 0, 0]], dtype=dtype).requires_grad_()
    teacher = torch.tensor([[0, 1, 0, 0], [0, 0.5, 0.5, 0], [1, 0, 0, 0]], dtype=torch.float16)
    losses = attention_divergence(student, teacher)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(student.grad).all()


def test_no_map_at_all_gives_no_loss():
    assert attention_divergence(torch.empty(0, 4), torch.empty(0, 4)).shape == (0,)


# --- Two views


def test_views_that_are_answered_alike_cost_nothing_and_unlike_ones_the_same_both_ways():
    one, other = drawn(17, 4, 9), drawn(18, 4, 9)
    shares = [logits.softmax(-1).numpy() for logits in (one, other)]
    wanted = torch.from_numpy(distance.jensenshannon(*shares, axis=1) ** 2)
    assert view_divergence(one, one).abs().max() < 1e-9
    torch.testing.assert_close(view_divergence(one, other), wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(view_divergence(other, one), wanted, rtol=1e-6, atol=1e-9)


def test_the_gradient_for_views_equals_finite_differences():
    views = [drawn(seed, 2, 5).requires_grad_() for seed in (19, 20)]
    assert torch.autograd.gradcheck(view_divergence, views)


def test_a_fixed_view_has_no_gradient_and_the_other_its_own():
    views = [drawn(seed, 2, 5).requires_grad_() for seed in (21, 22)]
    both = torch.autograd.grad(view_divergence(*views).sum(), views)
    first, second = torch.autograd.grad(view_divergence(*views, stop_gradient=True).sum(), views, allow_unused=True)
    torch.testing.assert_close(first, both[0])
    assert second is None


def test_views_with_extreme_logits_stay_finite():
    one = torch.tensor([[1e4, -1e4, 0], [-math.inf, 0, 1]], requires_grad=True)
    other = torch.tensor([[-1e4, 1e4, 0], [0, -math.inf, 1]], requires_grad=True)
    losses = view_divergence(one, other)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(one.grad).all()
    assert torch.isfinite(other.grad).all()


def test_views_in_chunks_equal_views_at_once():
    hidden, head = drawn(23, 5, 2, 3).requires_grad_(), nn.Linear(3, 7, dtype=torch.float64)
    chunked = over_chunks(hidden, head, lambda logits, _: view_divergence(logits[:, 0], logits[:, 1]), 2)
    whole = view_divergence(head(hidden[:, 0]), head(hidden[:, 1]))
    torch.testing.assert_close(chunked, whole)
    (got,), (wanted,) = (torch.autograd.grad(losses.sum(), hidden) for losses in (chunked, whole))
    torch.testing.assert_close(got, wanted)


# --- From tokens to pairs


@QUICK
@given(st.lists(st.tuples(st.floats(0, 9), st.integers(-1, 3)), max_size=12))
def test_a_pair_has_the_mean_over_its_tokens_and_0_where_it_has_none(tokens):
    losses = torch.tensor([loss for loss, _ in tokens], dtype=torch.float64)
    pair_of = torch.tensor([pair for _, pair in tokens], dtype=torch.long)
    means, counts = pair_means(losses, pair_of, 4)
    for pair in range(4):
        own = [loss for loss, of in tokens if of == pair]
        assert counts[pair] == len(own)
        assert means[pair].item() == pytest.approx(np.mean(own) if own else 0)


def test_masked_tokens_change_neither_mean_nor_gradient_whatever_they_are():
    losses = torch.tensor([1.0, math.nan, 3.0, math.inf, 5.0], requires_grad=True)
    means, _ = pair_means(losses, torch.tensor([0, -1, 0, -1, 1]), 2)
    means.sum().backward()
    assert means.tolist() == [2, 5]
    torch.testing.assert_close(losses.grad, torch.tensor([1 / 2, 0, 1 / 2, 0, 1]))


def test_the_order_of_tokens_does_not_matter():
    losses, pair_of, tokens = drawn(24, 9).abs(), torch.tensor([0, 0, 1, 2, 2, 2, 3, 3, 3]), torch.randperm(9)
    torch.testing.assert_close(pair_means(losses[tokens], pair_of[tokens], 4), pair_means(losses, pair_of, 4))
