"""Every metric on any texts: its score is a number from 0 to 1."""

from hypothesis import strategies as st

from fuzz_targets._drawn import of_pieces
from parityalign.core import Score, part_names
from parityalign.metrics import find_metric

_PIECES = [
    *(
        "tea",
        "Tea",
        "two",
        "2",
        "a",
        "the",
        "isn't",
        "dont",
        "10,000",
        "1.50",
        "50%",
        "$",
        "-7",
        "1e999",
        "nan",
        "inf",
        "1_0",
    ),
    *(
        ".",
        ",",
        "'",
        '"',
        "-",
        "/",
        " ",
        "\n",
        "\t",
        "ß",
        "İ",
        "²",
        "①",
        "٣",
        "１",
        "é",
        "e\u0301",
        "\u200b",
        "\0",
        "\ud800",
    ),
]
_TEXT = of_pieces(_PIECES, most=6) | st.text(max_size=30)

INPUTS = st.tuples(_TEXT, st.lists(_TEXT, min_size=1, max_size=10))


def check(given: tuple[str, list[str]]) -> None:
    """Scores a prediction against references, and against each as a pair's only answer."""
    prediction, references = given
    for name in part_names("metrics"):
        metric = find_metric(name)
        scores = [metric.score(prediction, references), *(metric.on_pair(prediction, one) for one in references)]
        for score in scores:
            _require_share(name, score)


def _require_share(name: str, score: Score) -> None:
    if not isinstance(score.value, float | int) or not 0 <= score.value <= 1:
        raise AssertionError(f"{name} gives {score}")
    if not isinstance(score.compared, str) or not isinstance(score.why, str):
        raise AssertionError(f"{name} says nothing: {score}")
