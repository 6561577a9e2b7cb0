"""The report in a real browser: it fetches nothing, draws every chart, is short while folded, and fits a phone.

``nox -s report`` writes the report and runs this. Screenshots go into ``screenshots/`` beside it.
"""

import os
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: nox -s report installs it")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
PAGE = Path(os.environ.get("REPORT", "report/index.html")).resolve()
WIDTHS = {"wide": 1280, "phone": 390}
TIMEOUT_MS = 120_000

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed; set BROWSER_PATH")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield opened
        opened.close()


class OpenPage:
    """The page in a window, with its requests and errors."""

    def __init__(self, browser, width, theme):
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.fetched, self.errors = [], []
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(PAGE.as_uri())
        self.page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=TIMEOUT_MS)
        self.height = self.page.evaluate("document.documentElement.scrollHeight")

    def open_everything(self):
        self.page.evaluate("for (const part of document.querySelectorAll('main details')) part.open = true")
        self.page.wait_for_function("!document.querySelector('.chart:not([data-drawn])')", timeout=TIMEOUT_MS)


@pytest.fixture(scope="module", params=[("wide", "light"), ("phone", "dark")],
                ids="-".join)  # fmt: skip
def opened(request, browser):
    size, theme = request.param
    window = OpenPage(browser, WIDTHS[size], theme)
    folder = PAGE.parent / "screenshots"
    folder.mkdir(exist_ok=True)
    window.page.screenshot(path=folder / f"{size}-{theme}.png")
    window.open_everything()
    ids = "parts => parts.map(one => one.id)"
    for name in window.page.locator("article.story, details.experiment").evaluate_all(ids):
        window.page.evaluate("name => document.getElementById(name).scrollIntoView({ behavior: 'instant' })", name)
        window.page.screenshot(path=folder / f"{size}-{theme}-{name}.png")
    yield window
    window.page.close()


def test_nothing_is_fetched(opened):
    assert [url for url in opened.fetched if not url.startswith("data:")] == [PAGE.as_uri()]


def test_there_are_no_errors(opened):
    assert opened.errors == []


def test_the_page_is_short_where_nothing_is_unfolded(opened):
    screens = opened.height / 900
    assert screens <= (40 if opened.page.viewport_size["width"] == WIDTHS["wide"] else 60), screens


def test_the_file_is_small():
    assert PAGE.stat().st_size <= 1_500_000


def test_there_are_eight_stories(opened):
    assert opened.page.locator("article.story").count() == 8


def test_every_picture_is_drawn_and_described(opened):
    charts = opened.page.locator(".chart")
    assert charts.count() > 0
    drawn = charts.evaluate_all(
        """charts => charts.map(chart => ({
            marks: chart.querySelectorAll("svg path:not(.background), svg image, svg text, svg line").length,
            width: chart.getBoundingClientRect().width,
            words: chart.getAttribute("aria-label") ?? "",
        }))"""
    )
    assert all(chart["marks"] > 0 and chart["width"] > 100 and len(chart["words"]) > 40 for chart in drawn), drawn


def test_nothing_is_wider_than_the_window(opened):
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_contents_fit_into_the_window(opened):
    opened.page.evaluate("document.querySelector('nav details').open = true")
    right, width = opened.page.evaluate(
        "[document.querySelector('nav ol').getBoundingClientRect().right, document.documentElement.clientWidth]"
    )
    opened.page.evaluate("document.querySelector('nav details').open = false")
    assert right <= width


def test_text_in_pictures_can_be_selected(opened):
    selectable = """() => {
        const text = document.querySelector(".chart svg text"), range = document.createRange();
        range.selectNodeContents(text);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        return getSelection().toString().length > 0 && getComputedStyle(text).userSelect !== "none";
    }"""
    assert opened.page.evaluate(selectable)


def test_curves_are_hovered_for_their_values(opened):
    chart = opened.page.locator(".chart:has(.mark-line)").first
    chart.scroll_into_view_if_needed()
    box = chart.locator("svg").bounding_box()
    for share in (0.3, 0.45, 0.6):
        opened.page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])
    opened.page.wait_for_selector("#vg-tooltip-element.visible", timeout=5000)
    assert any(character.isdigit() for character in opened.page.locator("#vg-tooltip-element").inner_text())


def test_the_claims_can_be_filtered(opened):
    page = opened.page
    for verdict in ("holds", "fails", "undecided"):
        page.locator(f"button[data-show={verdict}]").click()
        assert page.locator(f"tr[data-verdict]:not([data-verdict={verdict}]):visible").count() == 0
    page.locator("#search").fill("sigmoid")
    rows = page.locator("tr[data-verdict]:visible")
    assert 0 < rows.count() < page.locator("tr[data-verdict]").count()
    assert all("sigmoid" in text.lower() for text in rows.all_text_contents())
    page.locator("#search").fill("")
    page.locator("button[data-show=all]").click()
    page.evaluate("for (const part of document.querySelectorAll('details.section')) part.open = true")
    assert page.locator("tr[data-verdict]:visible").count() == page.locator("tr[data-verdict]").count() > 0


def test_a_link_unfolds_its_claim(opened):
    page = opened.page
    page.evaluate("for (const part of document.querySelectorAll('main details')) part.open = false")
    link = page.locator(".evidence a[href^='#']").first
    anchor = link.get_attribute("href")
    page.evaluate("anchor => { location.hash = anchor }", anchor)
    page.wait_for_selector(f"{anchor}:visible")
    opened.open_everything()


def test_light_and_dark_change_places(opened):
    colour = "getComputedStyle(document.body).backgroundColor"
    before = opened.page.evaluate(colour)
    opened.page.locator("#theme").click()
    assert opened.page.evaluate(colour) != before
    opened.page.locator("#theme").click()
    assert opened.page.evaluate(colour) == before
