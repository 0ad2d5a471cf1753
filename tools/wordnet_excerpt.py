"""Makes the excerpt of WordNet that the judge reads, from WordNet's own files.

    python tools/wordnet_excerpt.py FOLDER_WITH_DATA_NOUN src/parityalign/stages/words/nouns.tsv

Kept are the nouns of things that pictures show, in lower case and of at most three words, by those of their senses
that come first or second: all animals, artifacts and kinds of food, and of persons, plants, places in nature, acts and
times those that occur in the texts that WordNet's makers counted. A line a sense: the number of the line with its kind
(0: none), and its names, each with `'` if it is the name's second sense.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

_WHOLE = {"05", "06", "13"}
"""Lexicographers' files: animal, artifact, food."""
_COUNTED = {"04", "08", "17", "18", "19", "20", "28"}
"""Act, body, object, person, phenomenon, plant, time."""
_SENSES = 2
_NAME = re.compile(r"[a-z]+(?:_[a-z]+){0,2}")


class _Synset(NamedTuple):
    file: str
    names: list[str]
    parent: str


def main() -> None:
    """Reads, chooses, writes."""
    parser = argparse.ArgumentParser(description="Makes the judge's excerpt of WordNet.")
    parser.add_argument("database", type=Path, help="folder with data.noun, index.noun and index.sense")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    senses = dict(_senses(given.database / "index.noun"))
    synsets = dict(_synsets(given.database / "data.noun"))
    names = {key: _kept(key, each, senses) for key, each in synsets.items()}
    counted = set(_counted(given.database / "index.sense"))
    kept = [
        key
        for key, each in synsets.items()
        if names[key] and (each.file in _WHOLE or (each.file in _COUNTED and counted.intersection(each.names)))
    ]
    place = {key: number for number, key in enumerate(kept, start=1)}
    lines = [f"{_kind(key, synsets, place)}\t{','.join(names[key])}\n" for key in kept]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("".join(lines), encoding="utf-8")


def _senses(index: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, its synsets from the most frequent sense on)."""
    for line in index.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            name, _, count, *rest = line.split()
            yield name, rest[-int(count) :]


def _counted(index: Path) -> Iterator[str]:
    """Names that occur as nouns."""
    for line in index.read_text(encoding="utf-8").splitlines():
        key, _, _, count = line.split()
        name, kind = key.split("%")
        if kind.startswith("1:") and int(count):
            yield name


def _synsets(data: Path) -> Iterator[tuple[str, _Synset]]:
    for line in data.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        pointers = fields[4 + 2 * count :]
        parent = next((pointers[at + 1] for at in range(len(pointers)) if pointers[at] in ("@", "@i")), "")
        yield fields[0], _Synset(fields[1], fields[4 : 4 + 2 * count : 2], parent)


def _kind(key: str, synsets: Mapping[str, _Synset], place: Mapping[str, int]) -> int:
    """The line of the nearest kind that is kept; 0: none."""
    above = synsets[key].parent
    while above and above not in place:
        above = synsets[above].parent
    return place.get(above, 0)


def _kept(key: str, synset: _Synset, senses: Mapping[str, list[str]]) -> list[str]:
    """The names of a sense that are kept, in the form of the excerpt; of several words only where there is another.

    `new caledonian pine` is known by its last word to be a pine.
    """
    found = []
    for name in synset.names:
        first = senses.get(name, [])[:_SENSES]
        if _NAME.fullmatch(name) and key in first and ("_" not in name or len(synset.names) > 1):
            found.append(name.replace("_", " ") + "'" * first.index(key))
    return found


if __name__ == "__main__":
    main()
