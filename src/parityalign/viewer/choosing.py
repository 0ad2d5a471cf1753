"""Which rows a view shows, and in which order: read off the page's address, written as SQL and as an address again."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from parityalign.viewer.tables import FACETS, Index, Row

PAGE = 50
"""Rows of a view."""
_LONGEST = 200
"""Characters of what is searched for."""
MARKS = ("keep", "drop", "correct", "none", "pending")
ORDERS: Mapping[str, Mapping[str, str]] = {
    "pairs": {
        "": "place",
        "drawn at random": "pair_id",
        "confidence gap": "confidence_gap DESC, place",
        "attention divergence": "attention_divergence DESC, place",
        "rationale gap": "rationale_gap DESC, place",
        "verdict": "verdict, place",
    },
    "questions": {"": "place", "most lost": "gain IS NULL, gain, place", "most won": "gain DESC, place"},
}
"""How a table can be sorted, with the SQL, where NULL is less than any number; the first is the run's order. A pair's
identity is a hash, so its order is as good as a draw, and the same each time."""


class Choice(NamedTuple):
    """What of a table is shown."""

    table: str
    """`pairs` or `questions`."""
    wanted: Mapping[str, str]
    """Values by column, only those that are asked for."""
    words: str = ""
    """Searched in all texts of a row."""
    mark: str = ""
    """One of `MARKS`."""
    least: float | None = None
    most: float | None = None
    """Bounds of the confidence gap."""
    sort: str = ""
    page: int = 1

    def address(self, **changes: object) -> str:
        """The part of an address after the question mark, with changes; another filter begins at its first page."""
        said: dict[str, object] = {**self.wanted, "words": self.words, "mark": self.mark}
        said |= {"least": self.least, "most": self.most}
        said |= {"sort": self.sort, "page": self.page if self.page > 1 else None, **changes}
        return urlencode({key: value for key, value in said.items() if value not in ("", None)})

    @property
    def narrows(self) -> bool:
        """Whether not all rows are shown."""
        return bool(self.wanted or self.words or self.mark) or self.least is not None or self.most is not None


class View(NamedTuple):
    """One page of rows."""

    choice: Choice
    rows: list[Row]
    found: int
    """Rows on all pages."""
    total: int
    """Rows without filters."""

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.found // PAGE))


def choice_in(table: str, asked: Mapping[str, str]) -> Choice:
    """What an address asks for; what makes no sense in it is left out."""
    sort, mark, page = (asked.get(key, "") for key in ("sort", "mark", "page"))
    return Choice(
        table=table,
        wanted={column: asked[column] for column in FACETS[table] if asked.get(column)},
        words=asked.get("words", "").strip()[:_LONGEST],
        mark=mark if table == "pairs" and mark in MARKS else "",
        least=_number(asked.get("least", "")) if table == "pairs" else None,
        most=_number(asked.get("most", "")) if table == "pairs" else None,
        sort=sort if sort in ORDERS[table] else "",
        page=int(page) if page.isdecimal() and int(page[:9]) > 0 and len(page) < 9 else 1,
    )


def view_of(index: Index, choice: Choice) -> View:
    """The rows of a choice; beyond the last page there is the last page."""
    where, values = _where(choice)
    source, order = f"{choice.table}{_joins(choice)}{where}", ORDERS[choice.table][choice.sort]
    places = index.places(f"SELECT {choice.table}.place FROM {source} ORDER BY {order}", *values)  # noqa: S608
    choice = choice._replace(page=min(choice.page, max(1, -(-len(places) // PAGE))))
    shown = places[PAGE * (choice.page - 1) : PAGE * choice.page]
    total = index.number(f"SELECT COUNT(*) FROM {choice.table}")  # noqa: S608
    return View(choice, rows_at(index, choice.table, shown), len(places), total)


def list_facts(
    asked: Mapping[str, str], index: Index, table: str, *, key: str, named: str, filters: Mapping[str, str]
) -> dict[str, object]:
    """What stands on a page with a list and one row of it large beside it: its template's facts.

    Args:
        asked: The part of the address after the question mark.
        index: Of the run.
        table: `pairs` or `questions`.
        key: The column by which the address names the large row.
        named: What the address calls it.
        filters: The words for the columns that can be filtered by.
    """
    view = view_of(index, choice_in(table, asked))
    chosen = next((row for row in view.rows if str(row[key]) == asked.get(named)), None)
    return {
        "view": view,
        "selected": chosen or (view.rows[0] if view.rows else None),
        "asked_for_one": chosen is not None,
        "facets": {filters[column]: (column, of) for column, of in index.facets(table).items() if of},
    }


def rows_at(index: Index, table: str, places: Sequence[int]) -> list[Row]:
    """The rows at these places of a table with their texts, in this order; those that are not there are left out."""
    texts = "pair_texts" if table == "pairs" else "question_texts"
    marked = " LEFT JOIN marks USING (pair_id)" if table == "pairs" else ""
    holes = ", ".join("?" * len(places))
    query = f"SELECT * FROM {table} JOIN {texts} USING (place){marked} WHERE place IN ({holes})"  # noqa: S608
    found = {row["place"]: row for row in index.rows(query, *places)}
    return [found[place] for place in places if place in found]


def place_of(index: Index, pair_id: str) -> int | None:
    """Where a pair stands; None: the run has no such pair."""
    found = index.rows("SELECT place FROM pairs WHERE pair_id = ?", pair_id)
    return found[0]["place"] if found else None


def _joins(choice: Choice) -> str:
    words = " JOIN pair_words USING (place)" if choice.table == "pairs" else " JOIN question_words USING (place)"
    return (words if choice.words else "") + (" LEFT JOIN marks USING (pair_id)" if choice.mark else "")


def _where(choice: Choice) -> tuple[str, list[object]]:
    """The condition, and the values of its question marks; names of columns are those of `FACETS` alone."""
    said: list[str] = [f"{column} = ?" for column in choice.wanted]
    values: list[object] = [*choice.wanted.values()]
    if choice.words:
        said.append("instr(words, ?)")
        values.append(choice.words.casefold())
    if choice.mark:
        said.append({"none": "mark IS NULL", "pending": "pending"}.get(choice.mark, "mark = ?"))
        values += [choice.mark] if choice.mark not in ("none", "pending") else []
    for bound, sign in ((choice.least, ">="), (choice.most, "<=")):
        if bound is not None:
            said.append(f"confidence_gap {sign} ?")
            values.append(bound)
    return (f" WHERE {' AND '.join(said)}" if said else ""), values


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e9 else None
