"""A metric: 1 if the prediction has the words of one of the references, in any order, else 0."""

from collections.abc import Sequence

from parityalign.core import Metric, Score


def same_words(prediction: str, references: Sequence[str]) -> Score:
    """Compares sets of words, in lower case."""
    words = set(prediction.lower().split())
    same = any(words == set(reference.lower().split()) for reference in references)
    return Score(float(same), " ".join(sorted(words)), f"one of {len(references)} references" if same else "none")


METRIC = Metric("same_words", same_words)
