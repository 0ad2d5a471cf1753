"""Two tokenizations of one answer are compared over the shortest stretches of text that both have whole."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from parityalign.core.layout import EMBEDDED_MODELS
from parityalign.training.losses._alignment import (
    Group,
    align,
    answer_difference,
    group_logprobs,
    is_aligned,
    member_table,
    same_tokens,
    teacher_group_logprobs,
    translated,
)
from parityalign.training.losses._chunks import over_chunks
from parityalign.training.losses._divergences import (
    DIVERGENCES,
    TopTokens,
    class_logprobs,
    forward_kl,
    token_divergence,
)
from parityalign.training.losses._vocabulary import token_map, token_texts

QUICK = settings(max_examples=60, deadline=None)
each_divergence = pytest.mark.parametrize("divergence", DIVERGENCES.values(), ids=DIVERGENCES.keys())
CORPUS = [
    "the cat sat on the mat",
    "a stop sign says stop",
    "42 and 1995 were years",
    "café naïve 😀 über",
    "Coca Cola",
]
ANSWERS = ["stop", "the cat", "1995", "coca cola sign", "a café 😀", "420", "😀😀", "  two  spaces "]


@st.composite
def tokenizations(draw):
    """Where one text's tokens end under two tokenizers; some are parts of one character, some without any."""
    length = draw(st.integers(1, 12))
    places = st.lists(st.integers(0, length), max_size=10)
    return [[*sorted(draw(places)), length, length] for _ in range(2)]


def covered(ends, span):
    """The characters of some tokens, each of which has those from where the one before it ended."""
    return range(max([0, *ends[: span.start]]), max(ends[: span.stop]))


# --- Groups


@QUICK
@given(tokenizations())
def test_groups_part_both_tokenizations_and_cover_the_same_characters(sides):
    student, teacher = sides
    *groups, end = align(student, teacher)
    assert [token for group in (*groups, end) for token in group.student] == list(range(len(student)))
    assert [token for group in (*groups, end) for token in group.teacher] == list(range(len(teacher)))
    assert end.one_to_one
    for group in groups:
        assert covered(student, group.student) == covered(teacher, group.teacher) != range(0)


@QUICK
@given(tokenizations())
def test_there_is_a_cut_wherever_both_end_a_token(sides):
    *groups, _ = align(*sides)
    assert [covered(sides[0], group.student).stop for group in groups] == sorted(set(sides[0]) & set(sides[1]) - {0})


@QUICK
@given(st.sets(st.integers(1, 20), min_size=1))
def test_equal_tokenizations_align_one_to_one(places):
    ends = [*sorted(places), max(places)]
    groups = align(ends, ends)
    assert len(groups) == len(ends)
    assert all(group.one_to_one for group in groups)
    assert is_aligned(groups)


@QUICK
@given(tokenizations())
def test_the_sides_may_change_places(sides):
    student, teacher = sides
    swapped = tuple(Group(group.teacher, group.student) for group in align(teacher, student))
    assert align(student, teacher) == swapped


def test_a_word_of_one_token_is_compared_with_its_two_halves_and_the_ends_with_each_other():
    assert align([4, 9, 9], [4, 6, 9, 9]) == (
        Group(range(0, 1), range(0, 1)),
        Group(range(1, 2), range(1, 3)),
        Group(range(2, 3), range(3, 4)),
    )


def test_white_space_after_the_text_belongs_to_its_last_token():
    assert align([3, 4], [3, 4, 4])[0] == Group(range(0, 1), range(0, 2))


def test_an_answer_without_text_has_no_groups():
    assert align([], [1, 1]) == align([1, 1], [1]) == align([0], [0]) == ()


def test_nothing_aligns_where_the_only_common_place_is_the_end():
    assert not is_aligned(align([1, 3, 4, 4], [2, 4, 4]))
    assert not is_aligned(())
    assert is_aligned(align([1, 4, 4], [1, 2, 4, 4]))
    assert is_aligned(align([4, 4], [4, 4]))


# --- Real tokenizers


def trained(size):
    """A byte-level tokenizer as Qwen's or SmolVLM's, with as many merges as fit into its size."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=letters, special_tokens=[f"<end{size}>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=f"<end{size}>")


def pieces():
    """A tokenizer that marks white space as Llama's or Gemma's does."""
    words = ["▁the", "▁cat", "▁stop", "▁a", "▁", *"abcdefghijklmnopqrstuvwxyz0123456789", "<unk>"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0 - number) for number, word in enumerate(words)], unk_id=41))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<unk>")


@pytest.fixture(scope="module")
def tokenizers():
    embedded = AutoTokenizer.from_pretrained(EMBEDDED_MODELS / "student")
    return {"small": trained(270), "large": trained(330), "pieces": pieces(), "embedded": embedded}


def encode(tokenizer, text):
    """The answer's ids and where they end, the end token included."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in encoded["offset_mapping"]]
    return [*encoded["input_ids"], tokenizer.eos_token_id], [*ends, len(text)]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize(("one", "other"), [("small", "large"), ("large", "pieces"), ("embedded", "small")])
def test_groups_of_real_tokenizers_cover_the_same_text(tokenizers, answer, one, other):
    student, teacher = (encode(tokenizers[name], answer)[1] for name in (one, other))
    *groups, end = align(student, teacher)
    assert end == Group(range(len(student) - 1, len(student)), range(len(teacher) - 1, len(teacher)))
    texts = [
        ["".join(answer[place] for place in covered(ends, span)).rstrip() for span in spans]
        for ends, spans in (
            (student, [group.student for group in groups]),
            (teacher, [group.teacher for group in groups]),
        )
    ]
    assert texts[0] == texts[1]
    assert "".join(texts[0]).replace(" ", "") == answer.replace(" ", "")


def test_a_tokenizer_aligns_with_itself_one_to_one_but_for_tokens_that_share_a_place(tokenizers):
    for answer in ANSWERS:
        for tokenizer in tokenizers.values():
            ends = encode(tokenizer, answer)[1]
            groups = align(ends, ends)
            assert all(group.student == group.teacher for group in groups)
            assert all(group.one_to_one or len({ends[token] for token in group.student}) == 1 for group in groups)


def test_tokens_that_are_parts_of_one_character_stay_together(tokenizers):
    ids, ends = encode(tokenizers["small"], "😀 a")
    assert len(ids) > 4
    assert align(ends, [1, 3, 3])[0].student == range(0, ends.index(2))


# --- Vocabularies


def test_a_token_s_text_keeps_its_white_space(tokenizers):
    large, metaspace = tokenizers["large"], tokenizers["pieces"]
    texts = token_texts(large)
    assert texts[large.convert_tokens_to_ids("Ġthe")] == " the"
    assert texts[large.convert_tokens_to_ids("t")] == "t"
    assert token_texts(metaspace)[metaspace.convert_tokens_to_ids("▁the")] == " the"


def test_parts_of_characters_have_no_certain_text(tokenizers):
    small = tokenizers["small"]
    parts = encode(small, "😀")[0][:-1]
    assert len(parts) > 1
    assert [token_texts(small)[part] for part in parts] == [None] * len(parts)


def test_tokens_are_mapped_by_exact_text_across_kinds_of_tokenizers(tokenizers):
    teacher, student = tokenizers["pieces"], tokenizers["large"]
    mapped = token_map(token_texts(teacher), token_texts(student))
    id_of = lambda token: int(mapped[teacher.convert_tokens_to_ids(token)])  # noqa: E731
    assert id_of("▁the") == student.convert_tokens_to_ids("Ġthe")
    assert id_of("q") == student.convert_tokens_to_ids("q")
    assert id_of("<unk>") == -1


def test_equal_vocabularies_map_onto_themselves_where_the_text_is_certain_and_single(tokenizers):
    for tokenizer in tokenizers.values():
        texts = token_texts(tokenizer)
        mapped = token_map(texts, texts).tolist()
        for token, text in enumerate(texts):
            if text is not None:
                assert mapped[token] in ((token, -1) if texts.index(text) != token else (token,))


@QUICK
@given(*[st.lists(st.sampled_from([None, "a", "b", " a", "c", "d"]), min_size=1)] * 2)
def test_a_map_keeps_the_text_and_never_gives_two_tokens_the_same_id(teacher, student):
    mapped = token_map(teacher, student, ends=(0, 0)).tolist()
    found = [token for token in mapped if token >= 0]
    assert mapped[0] == 0
    assert len(set(found)) == len(found)
    assert all(student[to] == teacher[token] for token, to in enumerate(mapped) if token and to >= 0)


def test_end_tokens_are_the_same_whatever_they_are_called(tokenizers):
    teacher, student = tokenizers["large"], tokenizers["small"]
    texts = token_texts(teacher), token_texts(student)
    ends = teacher.eos_token_id, student.eos_token_id
    assert int(token_map(*texts)[ends[0]]) == -1
    assert int(token_map(*texts, ends=ends)[ends[0]]) == ends[1]


# --- The same token for both: the teacher's other tokens are translated


def test_a_teacher_with_the_student_s_distribution_under_other_ids_costs_nothing():
    logits = 3 * torch.randn(4, 9, dtype=torch.float64)
    order = torch.randperm(9)  # the teacher's id of each token of the student
    there = torch.full((12,), -1)
    there[order] = torch.arange(9)
    logprobs, ids = logits.log_softmax(-1).topk(4)
    tail = (1 - logprobs.exp().sum(-1)).log()
    teacher = translated(TopTokens(order[ids], logprobs, tail), there)
    assert torch.equal(teacher.ids, ids)
    assert token_divergence(logits, teacher, shared=9).abs().max() < 1e-9


def test_tokens_that_the_student_lacks_are_marked():
    there = torch.tensor([5, -1, 7])
    teacher = TopTokens(torch.tensor([[2, 1, 3, -1, 0]]), torch.zeros(1, 5), torch.zeros(1))
    assert translated(teacher, there).ids.tolist() == [[7, -1, -1, -1, 5]]


def test_only_single_tokens_of_the_same_text_are_the_same():
    groups = align([2, 4, 6, 6], [2, 4, 5, 6, 6])
    there = torch.tensor([10, 99, 12, 13, 14])
    assert same_tokens(groups, [10, 11, 12, 14], [0, 1, 2, 3, 4], there) == [True, False, False, True]


# --- Groups as events


def token_classes(logits, labels):
    return class_logprobs(logits, labels[:, None], logits.shape[1])


def example(tokens=7, vocabulary=6, seed=0):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(tokens, vocabulary, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(vocabulary, (tokens,))


SPANS = [range(0, 1), range(1, 4), range(4, 5), range(5, 7)]


def test_a_group_is_as_probable_as_its_tokens_in_a_row():
    logits, labels = example()
    got = group_logprobs(token_classes(logits, labels), member_table(SPANS)).exp()
    right = logits.softmax(-1)[torch.arange(7), labels]
    wanted = torch.stack([right[list(span)].prod() for span in SPANS])
    torch.testing.assert_close(got, torch.stack([wanted, 1 - wanted], 1))


def test_the_teacher_s_groups_are_as_probable_as_its_tokens_in_a_row():
    logprobs = -torch.rand(7, dtype=torch.float64)
    got = teacher_group_logprobs(logprobs, member_table(SPANS)).exp()
    wanted = torch.stack([logprobs[list(span)].sum().exp() for span in SPANS])
    torch.testing.assert_close(got, torch.stack([wanted, 1 - wanted], 1))


@each_divergence
def test_groups_of_a_student_that_equals_the_teacher_cost_nothing(divergence):
    logits, labels = example()
    members = member_table(SPANS)
    student = group_logprobs(token_classes(logits, labels), members)
    teacher = teacher_group_logprobs(-functional.cross_entropy(logits, labels, reduction="none"), members)
    losses = divergence(teacher, student)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert losses.abs().max() < 1e-12
    assert gradient.abs().max() < 1e-9


@each_divergence
def test_the_gradient_for_groups_equals_finite_differences(divergence):
    logits, labels = example()
    members = member_table(SPANS)
    teacher = teacher_group_logprobs(-2 * torch.rand(7, dtype=torch.float64), members)
    assert torch.autograd.gradcheck(
        lambda x: divergence(teacher, group_logprobs(token_classes(x, labels), members)), logits
    )


def test_groups_in_chunks_equal_groups_at_once():
    torch.manual_seed(1)
    hidden, head = torch.randn(7, 3, dtype=torch.float64, requires_grad=True), torch.nn.Linear(3, 6).double()
    labels, members = torch.randint(6, (7,)), member_table(SPANS)
    teacher = teacher_group_logprobs(-torch.rand(7), members).double()
    chunked = over_chunks(hidden, head, lambda logits, place: token_classes(logits, labels[place]), 2)
    losses = [
        forward_kl(teacher, group_logprobs(one, members)) for one in (chunked, token_classes(head(hidden), labels))
    ]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*[torch.autograd.grad(one.sum(), hidden)[0] for one in losses])


@each_divergence
def test_groups_of_extreme_tokens_stay_finite(divergence):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [-math.inf, 0]], requires_grad=True)
    labels, members = torch.zeros(4, dtype=torch.long), member_table([range(0, 1), range(0, 2), range(2, 4), range(4)])
    teacher = teacher_group_logprobs(torch.tensor([0, -65504, -math.inf, -0.5]).half(), members)
    losses = divergence(teacher, group_logprobs(token_classes(logits, labels), members))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(logits.grad).all()


def test_a_group_does_not_depend_on_what_else_is_in_the_batch():
    logits, labels = example()
    classes = token_classes(logits, labels)
    together = group_logprobs(classes, member_table(SPANS))
    worse = classes.clone()
    worse[1:4] -= 1e5
    torch.testing.assert_close(group_logprobs(worse, member_table(SPANS))[[0, 2, 3]], together[[0, 2, 3]])
    torch.testing.assert_close(group_logprobs(classes, member_table(SPANS[::-1])), together.flip(0))
    torch.testing.assert_close(group_logprobs(classes, member_table(SPANS[:1])), together[:1])


def test_no_group_at_all_gives_no_loss():
    assert member_table([]).shape == (0, 1)
    assert group_logprobs(torch.empty(0, 2), member_table([])).shape == (0, 2)
    assert teacher_group_logprobs(torch.empty(0), member_table([])).shape == (0, 2)


# --- Whole answers


def test_whole_answers_differ_by_nats_a_character_squared_first_and_straight_on_later():
    student, teacher = torch.tensor([-4.0, -10.0, -900.0]), torch.tensor([-4.0, -4.0, -100.0])
    got = answer_difference(student, teacher, torch.tensor([3, 6, 4]))
    torch.testing.assert_close(got, torch.tensor([0.0, 0.5, 199.5]))


def test_the_gradient_for_whole_answers_equals_finite_differences_and_is_bounded():
    student = torch.tensor([-4.0, -10.0, -1e6], dtype=torch.float64, requires_grad=True)
    teacher, characters = torch.tensor([-3.0, -2.5, 0.0]), torch.tensor([3, 5, 1])
    assert torch.autograd.gradcheck(lambda x: answer_difference(x, teacher, characters), student)
    answer_difference(student, teacher, characters).sum().backward()
    assert student.grad.abs().max() <= 1


def test_answers_without_characters_stay_finite():
    assert torch.isfinite(answer_difference(torch.zeros(1), -torch.ones(1), torch.zeros(1))).all()


# --- The whole way


@each_divergence
def test_two_tokenizers_that_differ_meet_in_one_loss_that_teaches(tokenizers, divergence):
    teacher, student = tokenizers["small"], tokenizers["embedded"]
    (teacher_ids, teacher_ends), (student_ids, student_ends) = (
        encode(tokenizer, "the stop sign") for tokenizer in (teacher, student)
    )
    groups = align(student_ends, teacher_ends)
    ends = teacher.eos_token_id, student.eos_token_id
    there = token_map(token_texts(teacher), token_texts(student), ends=ends)
    same = same_tokens(groups, student_ids, teacher_ids, there)
    wanted = teacher_group_logprobs(
        torch.full((len(teacher_ids),), -0.1), member_table([group.teacher for group in groups])
    )
    members, labels = member_table([group.student for group in groups]), torch.tensor(student_ids)
    logits = torch.zeros(len(student_ids), len(student), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    found = []
    for _ in range(150):
        losses = divergence(wanted, group_logprobs(token_classes(logits, labels), members))
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        found.append(losses.sum().item())
    assert is_aligned(groups)
    assert [(len(group.student), len(group.teacher)) for group in groups] == [(1, 1), (1, 1), (1, 4), (1, 1)]
    assert same == [False, True, False, True]
    assert min(found[-5:]) < found[0] / 100
    right = logits.log_softmax(-1)[torch.arange(len(labels)), labels]
    for group in groups:
        assert right[list(group.student)].sum().item() == pytest.approx(-0.1 * len(group.teacher), abs=0.05)
