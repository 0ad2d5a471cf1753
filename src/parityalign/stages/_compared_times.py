"""Compares two times of day, dates, or a number in Arabic with one in Roman digits."""

import re
from collections.abc import Sequence

from parityalign.stages._outcomes import Compared, Outcome

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = frozenset("monday tuesday wednesday thursday friday saturday sunday".split())
_NUMERIC_DATE = re.compile(r"(\d{1,2})[/.-](\d{1,2})(?:[/.-](\d{4}))?")
_TIME = re.compile(r"(\d{1,2})(?::(\d\d))?(?::(\d\d))? ?(am|pm)?")
_ROMAN = re.compile(r"m{0,3}(?:cm|cd|d?c{0,3})(?:xc|xl|l?x{0,3})(?:ix|iv|v?i{0,3})")
_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100, "d": 500, "m": 1000}


def compare_times(texts: Sequence[str], found: Sequence[Sequence[str]]) -> Compared | None:
    """What two answers come to of which both are times, dates or numbers; None if they are not, or nothing is decided.

    Args:
        texts: Both in lower case and one spelling.
        found: Their words.
    """
    if _same_times(*texts):
        return Compared(Outcome.RIGHT, "the same time")
    if _same_date(*found):
        return Compared(Outcome.RIGHT, "the same date")
    if _swapped(*texts):
        return Compared(Outcome.UNSURE, "day and month may be swapped")
    values = [_roman(text) for text in texts]
    if any(value and other == [str(value)] for value, other in zip(values, map(list, reversed(found)), strict=True)):
        return Compared(Outcome.RIGHT, "the same number")
    return None


def _same_times(one: str, other: str) -> bool:
    """Whether both are times, or from when to when, of which at least one is written as a clock shows it."""
    times = [[_TIME.fullmatch(part.strip()) for part in re.split("-|to", text)] for text in (one, other)]
    if len(times[0]) != len(times[1]) or len(times[0]) > 2 or ":" not in one + other:
        return False
    return all(a and b and _same_time(a, b) for a, b in zip(*times, strict=True))


def _same_time(one: re.Match[str], other: re.Match[str]) -> bool:
    seconds = one[3] and other[3] and one[3] != other[3]
    hours, halves = zip(*(_hour(each) for each in (one, other)), strict=True)
    same_half = halves[0] == halves[1] or not all(halves)
    return not seconds and (one[2] or "00") == (other[2] or "00") and hours[0] == hours[1] and same_half


def _hour(time: re.Match[str]) -> tuple[int, str]:
    """The hour from 0 to 11, or the number itself if it is none, and the half of the day if that is said."""
    hour = int(time[1])
    if hour > 24:
        return hour, ""
    return hour % 12, time[4] or ("pm" if 12 < hour < 24 else "")


def _same_date(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether both are dates, of which one may lack year and weekday, and may be in numbers in either order."""
    dates = [_dates(each) for each in (one, other)]
    return any(
        a[:2] == b[:2] and (not a[2] or not b[2] or a[2] == b[2]) for a in dates[0] for b in dates[1] if one != other
    )


def _dates(found: Sequence[str]) -> list[tuple[int, int, str]]:
    """(month, day, year) as which the words can be read; no year: empty."""
    if len(found) == 1 and (written := _NUMERIC_DATE.fullmatch(found[0])) and written[3]:
        first, second = int(written[1]), int(written[2])
        return [(month, day, written[3]) for month, day in ((first, second), (second, first)) if month <= len(_MONTHS)]
    months = [_MONTHS.index(word) + 1 for word in found if word in _MONTHS]
    rest = [word for word in found if word not in _MONTHS and word not in _DAYS]
    days = [int(word) for word in rest if word.isdecimal() and len(word) <= 2]
    years = [word for word in rest if word.isdecimal() and len(word) == 4]
    if len(months) != 1 or len(days) != 1 or len(days) + len(years) != len(rest):
        return []
    return [(months[0], days[0], years[0] if years else "")]


def _swapped(one: str, other: str) -> bool:
    dates = [_NUMERIC_DATE.fullmatch(text) if "/" in text else None for text in (one, other)]
    if not dates[0] or not dates[1] or dates[0][3] != dates[1][3]:
        return False
    first, second = ([int(date[1]), int(date[2])] for date in dates if date)
    return first == second[::-1] and max(first) <= len(_MONTHS)


def _roman(text: str) -> int:
    """The value of a Roman number; 0 if it is none."""
    if not text or not _ROMAN.fullmatch(text):
        return 0
    values = [_VALUES[letter] for letter in text]
    return sum(-value if value < after else value for value, after in zip(values, [*values[1:], 0], strict=True))
