"""The report in headless Chromium: it sorts, fits narrow windows, has two themes, and no errors."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from eagle.evaluation.report import write_report
from headless_chromium import look, needs_chromium, started_chromium
from tiles import evaluated_tiles, json_content, tile_views

pytestmark = needs_chromium

HEIGHT = 800


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with started_chromium(tmp_path_factory.mktemp("chromium"), browser="ALL") as driver:
        yield driver


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    evaluation = evaluated_tiles()
    path = tmp_path_factory.mktemp("report") / "best_report.html"
    write_report(path, json_content(evaluation), evaluation, tile_views(), {"Training": "lr: 0.0005\n"})
    return path


@pytest.fixture
def browser(chromium, report):
    """The report on a laptop, in light colours; afterwards the console must be empty."""
    look(chromium, "light", 1100, HEIGHT)
    chromium.get(report.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []


def found(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def test_report__asks_for_no_other_file_and_every_picture_can_be_shown(browser):
    requests = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in requests if not name.startswith("data:")] == []
    browser.execute_script("for (const img of document.images) img.loading = 'eager'")
    decoded = "Promise.all([...document.images].map((i) => i.decode())).then(() => arguments[0](true))"
    assert browser.execute_async_script(decoded)


def test_report__a_column_sorts_both_ways_and_dashes_stay_last(browser):
    def column():
        return [row.find_elements(By.TAG_NAME, "td")[0].text for row in found(browser, "#classes-published tbody tr")]

    values = sorted(float(text) for text in column() if text != "–")
    button = found(browser, "#classes-published thead button")[1]
    for expected in (values[::-1], values):
        button.send_keys(Keys.ENTER)
        *numbers, dash = column()
        assert ([float(text) for text in numbers], dash) == (expected, "–")


@pytest.mark.parametrize(("theme", "brightness"), [("light", (200, 255)), ("dark", (0, 60))])
def test_report__has_two_themes_and_fits_narrow_windows(browser, theme, brightness):
    for width in (1100, 390):
        look(browser, theme, width, HEIGHT)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert brightness[0] <= max(map(int, color[4:-1].split(","))) <= brightness[1]
