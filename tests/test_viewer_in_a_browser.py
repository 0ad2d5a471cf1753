"""The viewer in a real Chromium (make test-view): what a person does with keys and mouse, and what a page may not do.

Screenshots of every page, at two widths, light and dark, lie in the folder that VIEW_SCREENSHOTS names.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from projects import configure, done
from test_viewer import done_once, verdicts_of  # noqa: F401 - a fixture
from viewing import HOSTILE, drawn_run, marks_in

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="make test-view installs playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MANY = 100_000
SHOWN = Path(os.environ.get("VIEW_SCREENSHOTS", "build/viewer"))
MOST_MS = 300
"""A view of 100,000 pairs takes the server no longer, of CPU, since the machine may be busy."""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        # Without its sandbox, which needs what containers do not give; it opens pages of this machine alone.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Served:
    """A viewer in a process of its own, as a user starts it."""

    def __init__(self, *runs):
        command = [sys.executable, "-m", "parityalign", "view", *map(str, runs)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = re.search(r"http://\S+", self._process.stdout.readline())[0]
        self.home = self.address.partition("/?")[0]

    def open(self, browser, *, width=1280, scheme="light", height=900):
        """A page of the viewer, and all addresses that it asks for."""
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        page.asked, page.faults = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda fault: page.faults.append(str(fault)))
        page.on("dialog", lambda dialog: page.faults.append(dialog.message))
        page.goto(self.address)
        page.wait_for_selector(".entry", timeout=180_000)  # the page comes back by itself until the run is read
        page.wait_for_url(lambda url: "token" not in url)
        return page

    def cpu_of(self, page, view):
        """Milliseconds of CPU that a view costs the server."""
        process = psutil.Process(self._process.pid)
        before = process.cpu_times()
        assert page.request.get(f"{self.home}/0/pairs?{view}").ok
        after = process.cpu_times()
        return 1000 * (after.user + after.system - before.user - before.system)

    def end(self):
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def served(request):
    viewers = []

    def serve(*runs):
        viewers.append(Served(*runs))
        return viewers[-1]

    yield serve
    for each in viewers:
        each.end()


@pytest.fixture
def finished(done_once, tmp_path):  # noqa: F811
    return shutil.copytree(done_once, tmp_path / "project") / "runs" / "a"


def tell(text):
    """Shows what was measured (pytest -s)."""
    sys.stdout.write(f"\n{text}\n")


def said(page):
    """How many milliseconds the page says that it took the server, by the clock."""
    page.wait_for_selector(".found")
    return float(page.locator("footer").inner_text().rpartition("made in ")[2].split(" ms")[0].replace(",", ""))


def test_review_by_keyboard_is_applied_by_the_next_run(browser, served, finished):
    viewer = served(finished)
    page = viewer.open(browser)
    first, second, third = (entry.get_attribute("data-pair") for entry in page.locator(".entry").all()[:3])
    page.keyboard.press("2")
    page.wait_for_selector(f'[data-pair="{first}"] .mark.drop')
    page.keyboard.press("j")
    page.wait_for_selector(f'#pair [name="pair_id"][value="{second}"]', state="attached")
    page.keyboard.press("3")
    page.keyboard.type("a red kite")
    page.keyboard.press("Enter")
    page.wait_for_selector(f'[data-pair="{second}"] .mark.correct')
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.wait_for_selector(f'#pair [name="pair_id"][value="{third}"]', state="attached")
    page.keyboard.press("1")
    page.wait_for_selector(f'[data-pair="{third}"] .mark.keep')
    page.keyboard.press("k")
    page.wait_for_selector(f'#pair [name="pair_id"][value="{second}"]', state="attached")
    page.keyboard.press("Enter")
    assert page.locator(".picture.large").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".picture.large").count() == 0
    said = [
        (line["pair_id"], line["mark"], line.get("answer")) for line in marks_in(finished.parents[1] / "marks.jsonl")
    ]
    assert said == [(first, "drop", None), (second, "correct", "a red kite"), (third, "keep", None)]
    done("identify", finished)
    assert verdicts_of(finished)[first]["verdict"] == "dropped"
    page.goto(f"{viewer.home}/0/pairs/{second}")
    while not page.locator("text=a person's; written was").count():  # what is new is read in the background
        page.wait_for_timeout(200)
        page.reload()
    assert not page.faults


@pytest.mark.long
def test_nobody_misses_a_pair_who_goes_through_those_without_a_mark(browser, served, tmp_path):
    run = drawn_run(tmp_path / "run", 103)
    page = served(run).open(browser)
    page.goto(page.url.partition("?")[0] + "?mark=none")
    for number in range(103):
        entry = page.wait_for_selector('.entry[aria-current="true"]')
        pair_id = entry.get_attribute("data-pair")
        page.wait_for_selector(f'#pair [name="pair_id"][value="{pair_id}"]', state="attached")
        page.keyboard.press("1")
        page.wait_for_selector(f'[data-pair="{pair_id}"] .mark.keep')
        assert page.locator("[data-reviewed]").inner_text() == str(number + 1)
        page.keyboard.press("j")
        page.wait_for_function(
            "seen => document.querySelector('.entry[aria-current=\"true\"]')?.dataset.pair !== seen", arg=pair_id
        )
    page.wait_for_selector("text=No pair fits")
    assert len({line["pair_id"] for line in marks_in(run / "review.jsonl")}) == 103


@pytest.mark.long
def test_filters_and_search_are_fields_of_a_form(browser, served, finished):
    page = served(finished).open(browser)
    page.keyboard.press("/")
    page.keyboard.type("stop")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("words=stop"))
    assert {"stop"} == {each.inner_text() for each in page.locator(".entry .answer").all()}
    page.select_option('[name="verdict"]', index=1)
    page.click("text=Show")
    page.wait_for_url(re.compile("verdict="))
    assert "of 8 pairs" in page.locator(".found").first.inner_text()


@pytest.mark.long
def test_two_people_see_each_other_s_marks(browser, served, finished):
    viewer = served(finished)
    one, other = viewer.open(browser), viewer.open(browser)
    one.keyboard.press("2")
    one.wait_for_selector(".entry .mark.drop")
    other.keyboard.press("1")
    other.wait_for_selector("text=Somebody marked this pair meanwhile: drop")
    other.keyboard.press("1")
    other.wait_for_selector(".entry .mark.keep")
    assert [line["mark"] for line in marks_in(finished.parents[1] / "marks.jsonl")] == ["drop", "keep"]


@pytest.mark.long
def test_a_question_of_one_s_own_gets_an_answer_of_each_model(browser, served, finished):
    viewer = served(finished)
    page = viewer.open(browser)
    page.goto(f"{viewer.home}/0/try")
    page.set_input_files("[data-file]", finished.parents[1] / "pool" / "stop.png")
    page.wait_for_selector("[data-shown]:not([hidden])")
    page.fill("textarea", "What is written?")
    page.click("text=Ask all three")
    page.wait_for_selector("[data-ask]:not([disabled])", timeout=120_000)
    # A picture that is sent has no name by which the fake models know it; the levelled one is no fake model any more.
    assert page.locator('[data-who="teacher"]').inner_text() and page.locator('[data-who="before"]').inner_text()
    assert not page.faults


@pytest.mark.long
def test_two_runs_are_compared(browser, served, tmp_path):
    viewer = served(drawn_run(tmp_path / "one", 40), drawn_run(tmp_path / "other", 30))
    page = viewer.open(browser)
    page.click("text=compare")
    page.wait_for_selector("text=30 pairs are in both runs")


def test_hostile_texts_run_no_script_and_ask_nothing_outside(browser, served, tmp_path):
    run = drawn_run(tmp_path / "<img src=x onerror=alert(1)>", pairs=16, texts=HOSTILE, signals=True)
    viewer = served(run)
    page = viewer.open(browser)
    for _ in range(15):
        page.keyboard.press("j")
        page.wait_for_timeout(50)
    for place in ("tests", "run", "try", "pairs?words=%3Cscript%3Ealert(1)%3C/script%3E"):
        page.goto(f"{viewer.home}/0/{place}")
        page.wait_for_load_state("networkidle")
    outside = [url for url in page.asked if not url.startswith(f"{viewer.home}/")]
    tell(f"{len(page.asked)} requests, {len(outside)} of them outside")
    assert len(page.asked) > 20 and not outside and not page.faults
    assert page.evaluate("document.querySelectorAll('iframe, [onerror], [onload]').length") == 0


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return drawn_run(tmp_path_factory.mktemp("many") / "run", MANY, signals=True)


VIEWS = (
    "page=200{n}",
    "words=What+is+9999{n}",
    "words=nowhere+{n}",
    "verdict=neither&kind=colours&page={n}",
    "sort=confidence+gap&least=-{n}",
    "sort=confidence+gap&page=100{n}",
    "mark=none&least={n}&page=300",
)


@pytest.mark.long
def test_a_hundred_thousand_pairs_are_shown_without_waiting(browser, served, many):
    viewer = served(many)
    page = viewer.open(browser)
    # Three of each that nothing is kept of yet.
    times = {view: [viewer.cpu_of(page, view.format(n=n)) for n in range(1, 4)] for view in VIEWS}
    tell("\n".join(f"{min(of):6.0f} to {max(of):4.0f} ms of CPU  {view}" for view, of in times.items()))
    assert max(map(min, times.values())) < MOST_MS, times
    page.goto(f"{viewer.home}/0/pairs")
    for at in range(2, 7):
        page.click('a[rel="next"] >> nth=0')
        page.wait_for_selector(f"text=page {at} of 2,000 >> nth=0")
        tell(f"{said(page):6.0f} ms by the clock  page {at}")


@pytest.mark.parametrize(
    ("scheme", "width"),
    [
        ("light", 1280),
        pytest.param("dark", 420, marks=pytest.mark.long),
        pytest.param("light", 420, marks=pytest.mark.long),
        pytest.param("dark", 1280, marks=pytest.mark.long),
    ],
)
def test_every_page_fits_its_window(browser, served, finished, width, scheme):
    other = shutil.copytree(finished, finished.parent / "b")
    configure(finished.parents[1])
    viewer = served(finished, other)
    page = viewer.open(browser, width=width, scheme=scheme)
    pair_id = page.locator(".entry").first.get_attribute("data-pair")
    SHOWN.mkdir(parents=True, exist_ok=True)
    places = {
        "pairs": "0/pairs?sort=verdict",
        "pair": f"0/pairs/{pair_id}",
        "tests": "0/tests",
        "question": "0/tests/0",
    }
    places |= {"run": "0/run", "try": f"0/try?pair={pair_id}", "compare": "compare"}
    for name, place in places.items():
        page.goto(f"{viewer.home}/{place}")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=SHOWN / f"{name}-{width}-{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert not page.faults
