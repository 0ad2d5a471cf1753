"""Whether examples about one picture may share a row, and whether a frozen tower may look at each picture once.

Both are tried on real examples, since families differ in the masks that they take and in how they read a tower.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from parityalign.models import RowSharing, device_of, gpus_of, mean_difference, rounding_of, row_sharing
from parityalign.training.bundles import Bundle, Row
from parityalign.training.collator import AnswerCollator, Example
from parityalign.training.kernels import in_a_line
from parityalign.training.losses._passes import Passes
from parityalign.training.tower import FrozenTower, looks_once

_PICTURES_TRIED = 8
"""Most pictures among which two of different shapes are looked for."""
_FROM_BLIND = 4
"""How many times further off a student of blank pictures has to be: rounding in bfloat16 may excuse even that one."""


def tried_sharing(model: nn.Module, batches: AnswerCollator, examples: Sequence[Example]) -> RowSharing | None:
    """How examples about one picture share a row of a student.

    None: no picture has several, or the student does not give them the log-probabilities there that it gives them in
    rows of their own, up to rounding.

    Args:
        model: The student.
        batches: Its collator.
        examples: All that it is trained and measured on.
    """
    sharing, tried = row_sharing(model), _about_one_picture(examples)
    return sharing if sharing and tried and _says_the_same(model, batches, sharing, tried) else None


def tried_tower(
    model: nn.Module,
    batches: AnswerCollator,
    examples: Sequence[Example],
    room: int,
    *,
    bf16: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> FrozenTower | None:
    """What lets a student's tower look at each picture once, tried on two pictures.

    None: the tower learns, is small or on several devices, or the log-probabilities of answers are, beyond rounding,
    not those of a student that looks each time.

    Args:
        model: The student.
        batches: Its collator.
        examples: All that it is trained and measured on.
        room: Bytes that may be kept.
        bf16: Whether autocast computes in bfloat16 when the student is used.
        say: Told why a frozen tower looks each time.
    """
    if not looks_once(model) or len(gpus_of(model)) > 1:
        return None
    tried, kind = _of_two_pictures(batches, examples), device_of(model).type
    model.eval()
    try:
        with torch.autocast(kind, torch.bfloat16, enabled=bf16):
            rows = batches.rows(batches.begin(tried))
            each_time, pictures = _said_apart(model, batches, rows), [row.answer.encoded for row in rows]
            batches.tower = tower = FrozenTower(model, batches.prompter, pictures, room, bf16=bf16)
            rows = batches.rows(batches.begin(tried))
            once, batches.tower = _said_apart(model, batches, rows), None
            blind = _said_apart(model, batches, rows)  # these rows have no pixels
        difference, most = mean_difference(each_time, once), rounding_of(torch.bfloat16 if bf16 else _dtype(model))
        if tower.gave_up or not difference <= min(most, mean_difference(each_time, blind) / _FROM_BLIND):
            raise ValueError("the student says something else with what is kept")
    except Exception as problem:  # noqa: BLE001 - a family that is built in another way may raise anything
        say(f"the vision tower, which does not learn, looks at pictures each time: {in_a_line(problem)}")
        return None
    finally:
        batches.tower = None
    return tower


def _of_two_pictures(batches: AnswerCollator, examples: Sequence[Example]) -> list[Example]:
    """Examples of two pictures, of different shapes if there are any among the first; twice one if it is alone."""
    of_each: dict[str, Example] = {}
    for example in examples:
        of_each.setdefault(example.image, example)
    first, *others = [*of_each.values()][:_PICTURES_TRIED]
    shapes = [
        {key: array.shape for key, array in row.answer.encoded.image.items()}
        for row in batches.rows(batches.begin([first, *others]))
    ]
    unlike = (other for other, its in zip(others, shapes[1:], strict=True) if its != shapes[0])
    return [first, next(unlike, next(iter(others), first))]


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def _said_apart(model: nn.Module, batches: AnswerCollator, rows: Sequence[Row]) -> torch.Tensor:
    """Log-probabilities of examples that share no row."""
    return _logprobs(model, batches, [Bundle([row], 0, 0, 0) for row in rows], None)


def _about_one_picture(examples: Sequence[Example]) -> list[Example]:
    """Two examples about one picture, or one with a rationale; empty if there are none."""
    pictures: dict[str, list[Example]] = {}
    for example in examples:
        found = pictures.setdefault(example.image, [])
        found.append(example)
        if len(found) > 1 or example.rationale:
            return found
    return []


def _says_the_same(model: nn.Module, batches: AnswerCollator, sharing: RowSharing, tried: Sequence[Example]) -> bool:
    rows = batches.rows(batches.begin(tried))
    prefix = sharing.prefix([segment for row in rows for segment in row.segments])
    if not prefix:
        return False
    model.eval()
    try:
        apart = _logprobs(model, batches, [Bundle([row], 0, 0, 0) for row in rows], None)
        together = _logprobs(model, batches, [Bundle(rows, prefix, 0, 0)], sharing)
    except Exception:  # noqa: BLE001 - a family that takes no such masks may raise anything, and has rows apart then
        return False
    return mean_difference(apart, together) <= rounding_of(_dtype(model))


def _logprobs(
    model: nn.Module, batches: AnswerCollator, bundles: Sequence[Bundle], sharing: RowSharing | None
) -> torch.Tensor:
    """The log-probability of each labelled token, those of rationales last."""
    batch = batches.batch(bundles, sharing)
    passes = Passes(model, batch)
    parts = [passes, *([passes.part("explained")] if "explained" in batch else [])]

    def said(part: Passes) -> torch.Tensor:
        return part.each_token(lambda logits, place: logits.log_softmax(-1).gather(1, part.labels[place, None])[:, 0])

    with torch.no_grad():
        return torch.cat([said(part) for part in parts])
