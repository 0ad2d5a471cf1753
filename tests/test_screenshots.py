"""The pictures of the documents, made anew of a finished run in a real Chromium: make screenshots.

SHOWN_RUN names the run, DOCS_PICTURES the folder. Each is a WebP of what a person sees, without what lies below.
"""

import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from parityalign.report import write_report
from test_documents import ROOT
from test_viewer_in_a_browser import browser, served  # noqa: F401 - fixtures

pytestmark = pytest.mark.browser

RUN = Path(os.environ.get("SHOWN_RUN", "runs/demo"))
PICTURES = Path(os.environ.get("DOCS_PICTURES", "build/viewer/docs"))
MOST_BYTES = 60_000
DESK, PHONE = (1280, 800), (420, 900)
VIEWS = {"viewer-pairs": "0/pairs?sort=drawn+at+random", "viewer-tests": "0/tests?change=lost"}


@pytest.fixture
def finished():
    if not (RUN / "scores.json").is_file():
        pytest.skip(f"{RUN} is no finished run; make screenshots makes one")
    return RUN


def keep(page, name: str) -> None:
    """Keeps what is seen of a page, small."""
    made = BytesIO()
    Image.open(BytesIO(page.screenshot())).convert("RGB").save(made, "webp", quality=74, method=6)
    assert len(made.getvalue()) <= MOST_BYTES, f"{name} has {len(made.getvalue()):,} bytes"
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"{name}.webp").write_bytes(made.getvalue())


@pytest.mark.parametrize(
    ("name", "size", "scheme"), [("report", DESK, "light"), ("report-phone", PHONE, "dark")], ids=["desk", "phone"]
)
def test_the_report_as_it_is_opened(browser, finished, name, size, scheme):  # noqa: F811
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page = context.new_page()
    page.goto(write_report(finished).resolve().as_uri())
    keep(page, name)


def test_the_viewer_at_its_pages(browser, served, finished):  # noqa: F811
    viewer = served(finished)
    page = viewer.open(browser, width=DESK[0], height=1000)
    for name, place in VIEWS.items():
        page.goto(f"{viewer.home}/{place}")
        page.wait_for_load_state("networkidle")
        page.evaluate("document.querySelector('.notice')?.remove()")  # it names a path of this machine
        keep(page, name)


def test_the_documents_show_these_and_no_others():
    there = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert there == {f"{name}.webp" for name in ("report", "report-phone", *VIEWS)}
    texts = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    assert [name for name in sorted(there) if f"(pictures/{name})" not in texts] == []
    assert max(path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()) <= MOST_BYTES
