"""Collects the documents into one folder as the pages of a site, for `make docs`; their links become the site's.

python tools/docs_site.py FOLDER
"""

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Documents that lie elsewhere in the site."""
MOVED = {"recipes/README.md": "recipes.md"}
_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def main(folder: Path) -> None:
    """Writes all pages, and the files that they link to."""
    shutil.rmtree(folder, ignore_errors=True)
    places = {ROOT / name: page for name, page in (PAGES | MOVED).items()}
    places |= {path: str(path.relative_to(ROOT / "docs")) for path in sorted((ROOT / "docs").rglob("*.md"))}
    for source, page in places.items():
        text = _LINK.sub(lambda found, at=source, to=page: _link(found, at, to, places, folder), source.read_text())
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(text)


def _link(found: re.Match[str], source: Path, page: str, places: dict[Path, str], folder: Path) -> str:
    """A link of a document as one of its page; a file that is no page comes along, and of a folder its name is left."""
    text, target = found[1], Path(os.path.normpath(source.parent / found[2]))
    if target.is_dir() and (target / "README.md") not in places:
        return text
    target = target / "README.md" if target.is_dir() else target
    if target not in places:
        beside = folder / target.relative_to(ROOT)
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target, beside)
    to = places.get(target) or str(target.relative_to(ROOT))
    return f"[{text}]({os.path.relpath(to, Path(page).parent)}{found[3] or ''})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
