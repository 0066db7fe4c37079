"""The report in headless Chromium: it sorts, opens, fits narrow windows, is readable in both themes, and no errors."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from eagle.evaluation.report import write_report
from headless_chromium import look, needs_chromium, started_chromium
from tiles import CLASSES, evaluated_tiles, json_content, tile_views

pytestmark = needs_chromium

HEIGHT = 800
# Lowest contrast between visible text and the colour behind it, and that text. Titles on pictures have their own.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function painted(colors) {
  canvas.clearRect(0, 0, 1, 1);
  for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
}
function luminance(color) {
  const [r, g, b] = color.map((v) => (v /= 255, v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
let least = [99, ""];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
  if (!text || element.matches("script, .panel span") || !element.checkVisibility()) continue;
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
  const behind = luminance(painted(layers)), own = luminance(painted([getComputedStyle(element).color]));
  const contrast = (Math.max(own, behind) + 0.05) / (Math.min(own, behind) + 0.05);
  if (contrast < least[0]) least = [contrast, text];
}
return least;
"""


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


@pytest.mark.parametrize(("table", "number"), [("#classes-published", 1), ("#clusters", 3)])
def test_report__a_column_sorts_both_ways_and_dashes_stay_last(browser, table, number):
    def column(number):
        return [
            row.find_elements(By.CSS_SELECTOR, "th, td")[number].text for row in found(browser, f"{table} tbody tr")
        ]

    before = column(number)
    values = sorted(float(text) for text in before if text != "–")
    dashes = ["–"] * (len(before) - len(values))
    assert dashes
    head = found(browser, f"{table} thead th")[number]
    for expected, direction in ((values[::-1], "descending"), (values, "ascending")):
        head.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert [text if text == "–" else float(text) for text in column(number)] == expected + dashes
        assert [th.get_attribute("aria-sort") for th in found(browser, f"{table} [aria-sort]")] == [direction]
    if table == "#classes-published":
        found(browser, f"{table} thead button")[0].send_keys(Keys.ENTER)
        assert column(0) == sorted(CLASSES.names, key=str.lower)


def test_report__the_headline_is_visible_and_images_and_matrices_open(browser):
    head = found(browser, "#classes-published thead th")[1]
    assert head.text.split() == ["IoU", "cluster+crf"]
    assert head.rect["x"] + head.rect["width"] < 1100
    small = found(browser, ".image img")[0].size["width"]
    summary = found(browser, ".image summary")[0]
    assert not found(browser, ".image .legend")[0].is_displayed()
    summary.send_keys(Keys.ENTER)
    assert found(browser, ".image .legend")[0].is_displayed()
    assert found(browser, ".image img")[0].size["width"] > 1.5 * small
    found(browser, "#confusion summary")[1].send_keys(Keys.ENTER)
    assert [details.get_attribute("open") for details in found(browser, "#confusion details")][:2] == [None, "true"]


@pytest.mark.parametrize(("theme", "brightness"), [("light", (200, 255)), ("dark", (0, 60))])
def test_report__is_readable_in_both_themes_and_fits_narrow_windows(browser, theme, brightness):
    """Including the darkest shade of a confusion matrix."""
    browser.execute_script(
        "for (const cell of document.querySelectorAll('.right')) cell.style.setProperty('--share', 100)"
    )
    for width in (1100, 390):
        look(browser, theme, width, HEIGHT)
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
        contrast, text = browser.execute_script(CONTRAST)
        assert contrast >= 4.5, text
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert brightness[0] <= max(map(int, color[4:-1].split(","))) <= brightness[1]


def test_report__asks_for_no_other_file_and_every_picture_can_be_shown(browser):
    requests = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in requests if not name.startswith("data:")] == []
    browser.execute_script("for (const img of document.images) img.loading = 'eager'")
    decoded = "Promise.all([...document.images].map((i) => i.decode())).then(() => arguments[0](true))"
    assert browser.execute_async_script(decoded)
