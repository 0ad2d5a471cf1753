"""The forms of files of pairs, and what their columns are called here."""

from parityalign.core import did_you_mean

PAIR_FORMATS = ("pairs", "sharegpt", "messages", "trl", "first-release", "csv", "parquet", "lmms-eval", "vlmevalkit")
"""The forms that `data/given_pairs.py` reads."""
ANSWER_COLUMNS = ("student_text", "teacher_text")
"""What the two models answered, where a file says so."""
PAIR_COLUMNS = ("pair_id", "image", "question", "answer", *ANSWER_COLUMNS)
"""The columns of a table of pairs."""


def known_pair_format(name: str) -> str:
    """A form of pairs; a validator, so it raises ValueError."""
    if name not in PAIR_FORMATS:
        raise ValueError(f"there is no form of pairs {name!r}. {did_you_mean(name, PAIR_FORMATS)}")
    return name


def known_pair_column(name: str) -> str:
    """A column of a table of pairs; a validator, so it raises ValueError."""
    if name not in PAIR_COLUMNS:
        raise ValueError(f"there is no column {name!r} to name. {did_you_mean(name, PAIR_COLUMNS)}")
    return name
