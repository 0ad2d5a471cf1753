"""The report in a real Chromium (make test-view): its first screen, who can read it, and what a hostile text may do.

Screenshots at two sizes, light and dark, lie in the folder that VIEW_SCREENSHOTS names.
"""

import shutil

import pytest

from parityalign.report import write_report
from test_viewer import done_once  # noqa: F401 - a fixture
from test_viewer_in_a_browser import SHOWN, browser  # noqa: F401 - a fixture
from viewing import HOSTILE, drawn_run

pytestmark = pytest.mark.browser
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="make test-view installs axe")

SIZES = [(1280, 800), (420, 900)]
each_look = pytest.mark.parametrize("scheme", ["light", "dark"])
each_size = pytest.mark.parametrize("size", SIZES, ids=["desk", "phone"])


@pytest.fixture
def opened(browser, done_once, tmp_path):  # noqa: F811
    """A function that opens the report of a finished run."""
    run = shutil.copytree(done_once, tmp_path / "project") / "runs" / "a"

    def opened(size=SIZES[0], scheme="light", of=run):
        # The page's own policy would keep axe out.
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, bypass_csp=of is run
        )
        page = context.new_page()
        page.asked, page.faults = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda fault: page.faults.append(str(fault)))
        page.on("dialog", lambda dialog: page.faults.append(dialog.message))
        page.goto(write_report(of).as_uri())
        return page

    return opened


@each_size
@each_look
def test_the_first_screen_tells_all_without_scrolling(opened, size, scheme):
    page = opened(size, scheme)
    SHOWN.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOWN / f"report-{size[0]}-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator(".top").bounding_box()["height"] <= size[1]
    assert page.locator(".figure strong").count() == 3 and page.locator("h1").inner_text()


@each_size
@each_look
def test_nobody_is_kept_from_reading(opened, size, scheme):
    page = opened(size, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = axe.Axe().run(page)
    assert found.response["passes"]
    assert [each["id"] for each in found.response["violations"] if each["impact"] in ("serious", "critical")] == []


def test_keys_alone_lead_through_the_page(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


def test_what_is_folded_is_printed(opened):
    page = opened()
    assert not page.locator("pre").is_visible()
    page.emulate_media(media="print")
    assert page.locator("pre").is_visible() and not page.locator("nav").is_visible()


def test_pictures_are_dimmed_in_the_dark(opened):
    look = "getComputedStyle(document.querySelector('.card img')).filter"
    assert "brightness" in opened(scheme="dark").evaluate(look)
    assert opened().evaluate(look) == "none"


def test_hostile_texts_run_no_script_and_ask_nothing(opened, tmp_path):
    page = opened(of=drawn_run(tmp_path / "<img src=x onerror=alert(1)>", pairs=32, texts=HOSTILE))
    page.wait_for_timeout(300)
    assert [each for each in page.asked if not each.startswith("data:")] == [page.url] and not page.faults
    assert page.evaluate("document.querySelectorAll('iframe, script, [onerror], [onload]').length") == 0
