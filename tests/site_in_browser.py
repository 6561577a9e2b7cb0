"""The site in a real browser: it fetches nothing, fits a phone, has no errors and no serious faults of accessibility.

``nox -s docs`` builds the site and runs this, where Chromium or Chrome is installed. Screenshots go into
docs/_build/screenshots.
"""

import os
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: nox -s docs installs it")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python isn't installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
SITE = Path(os.environ.get("SITE", "docs/_build/html")).resolve()
SCREENSHOTS = SITE.parent / "screenshots"
WIDTHS = {"wide": 1280, "phone": 390}
PAGES = sorted(str(file.relative_to(SITE)) for file in SITE.rglob("*.html") if "_static" not in file.parts)
SHOWN = [page for page in PAGES if page not in ("genindex.html", "py-modindex.html", "search.html")]
"""Pages that are written here; the others are Sphinx's own lists."""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed; set BROWSER_PATH")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield opened
        opened.close()


def test_there_are_pages():
    assert {"index.html", "start.html", "errata.html", "reference/index.html"} <= set(SHOWN)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("name", SHOWN)
def test_page(browser, name, size, theme):
    page = browser.new_page(viewport={"width": WIDTHS[size], "height": 900}, color_scheme=theme)
    fetched, errors = [], []
    page.on("request", lambda request: fetched.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((SITE / name).as_uri(), wait_until="load")
    page.evaluate("document.documentElement.dataset.mode = 'auto'")
    folder = SCREENSHOTS / f"{size}-{theme}"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name.replace('/', '-').removesuffix('.html')}.png", full_page=True)
    assert [url for url in fetched if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[size]
    found = axe.Axe().run(page).response["violations"]
    serious = [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]
    assert serious == []
    page.close()


def test_search_finds_a_name(browser):
    page = browser.new_page()
    page.goto(f"{(SITE / 'search.html').as_uri()}?q=check_gradients")
    page.wait_for_selector("#search-results li a", timeout=20_000)
    assert "check_gradients" in page.locator("#search-results").inner_text()
    page.close()


def test_mathematics_is_drawn(browser):
    page = browser.new_page()
    page.goto((SITE / "reference/generated/funcnn.layers.linear.html").as_uri())
    boxes = page.locator("math").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert len(boxes) > 5
    assert min(boxes) > 3
    page.close()
