"""Shared by the metrics: checks of references, and VQA accuracy from a count of matches."""

from collections.abc import Callable, Sequence

from parityalign.core import Score, UserError


def require_references(prediction: str | None, references: Sequence[str]) -> None:
    """Refuses anything but a non-empty list of references.

    Raises:
        UserError: There is no reference.
    """
    # To Python and mypy a text is a sequence of texts; its letters would be taken for references.
    if isinstance(references, str) or not references:
        raise UserError(f"the references of {prediction!r} are {references!r}; give a list of one text or more")


def leave_one_out(compared: str, answers: Sequence[str], *, note: str = "") -> Score:
    """Mean over the annotators of min(1, equal answers among the others / 3), in closed form.

    A lone reference has no others and scores 0 whatever the prediction.
    """
    n = len(answers)
    matches = answers.count(compared)
    # `matches` annotators see one match less than the rest. In thirds, so that only the last step rounds.
    thirds = matches * min(3, matches - 1) + (n - matches) * min(3, matches)
    if n == 1:
        note += "; a lone reference always scores 0, as each annotator is compared with the others"
    return Score(thirds / (3 * n), compared, f"{matches} of {n} references match{note}")


_DISSENT = "\x00"
"""A filler for an annotator's answer that no model gives."""


def nine_of_ten(score: Callable[[str, Sequence[str]], Score]) -> Callable[[str, str], Score]:
    """VQA accuracy against one reference, taken as given by nine of ten annotators.

    VQA accuracy leaves one annotator out, so a single reference scores 0 whatever the prediction; and its official form
    compares raw texts where all ten agree, so "Tennis" would be wrong for "tennis". With nine of ten, the
    reference itself scores 1 under both.
    """
    return lambda prediction, reference: score(prediction, [reference] * 9 + [_DISSENT])
