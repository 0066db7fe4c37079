"""The report in headless Chromium: sorting, switches, viewer, both themes, and an empty console."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from eagle.reports.html.page import write_report
from headless_chromium import look, needs_chromium, started_chromium
from tiles import CLASSES, evaluated_tiles, json_content, tile_views

pytestmark = needs_chromium

HEIGHT = 800

# Lowest contrast between visible text and its background, and that text. Titles on pictures have their own background.
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgba(color) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}
function behind(element) {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
  let color = [255, 255, 255];
  for (const [r, g, b, a] of layers.reverse()) color = [r, g, b].map((v, i) => v * a + color[i] * (1 - a));
  return color;
}
function luminance(color) {
  const [r, g, b] = color.map((v) => (v /= 255, v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
let least = [99, ""];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
  if (!text || element.matches("script, .panel .title") || !element.checkVisibility()) continue;
  const [a, b] = [luminance(rgba(getComputedStyle(element).color)), luminance(behind(element))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < least[0]) least = [contrast, text];
}
return least;
"""

SHADES = """
document.querySelectorAll("[id='confusion-cluster+crf'] td:not([colspan])").forEach((cell, number) => {
  cell.className = `s${number % 11}`;
  cell.textContent = number;
});
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
    look(chromium, "light", 1280, HEIGHT)
    chromium.get(report.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []


def found(browser, selector):
    return browser.find_elements(By.CSS_SELECTOR, selector)


def column(browser, table, number):
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[number].text for row in found(browser, f"{table} tbody tr")]


def click(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    element.click()


@pytest.mark.parametrize(("table", "number"), [("#classes-published", 3), ("#classes-published", 6), ("#clusters", 3)])
def test_report__a_column_sorts_both_ways_and_dashes_stay_last(browser, table, number):
    header = found(browser, f"{table} thead th")[number]
    before = column(browser, table, number)
    n_absent = before.count("–")
    values = [float(text) for text in before if text != "–"]
    assert n_absent
    for expected, direction in ((sorted(values, reverse=True), "descending"), (sorted(values), "ascending")):
        click(browser, header.find_element(By.TAG_NAME, "button"))
        after = column(browser, table, number)
        assert [float(text) for text in after[: len(values)]] == expected
        assert after[len(values) :] == ["–"] * n_absent
        sorts = [th.get_attribute("aria-sort") for th in found(browser, f"{table} thead th[aria-sort]")]
        assert sorts.count(direction) == 1
        assert sorts.count("none") == len(sorts) - 1
        assert header.get_attribute("aria-sort") == direction


def test_report__numbers_sort_by_value(browser):
    table = "#classes-published"
    for row, number in zip(found(browser, f"{table} tbody tr"), ("9.5", "10", "", "1e-7"), strict=True):
        cell = row.find_elements(By.CSS_SELECTOR, "th, td")[2]
        browser.execute_script("arguments[0].dataset.value = arguments[0].textContent = arguments[1]", cell, number)
    click(browser, found(browser, f"{table} thead button")[2])
    assert column(browser, table, 2) == ["10", "9.5", "1e-7", ""]
    click(browser, found(browser, f"{table} thead button")[2])
    assert column(browser, table, 2) == ["1e-7", "9.5", "10", ""]


def test_report__names_sort_by_the_keyboard_and_rows_stay_whole(browser):
    table = "#classes-published"
    rows = {row.text for row in found(browser, f"{table} tbody tr")}
    button = found(browser, f"{table} thead button")[0]
    button.send_keys(Keys.ENTER)
    assert column(browser, table, 0) == sorted(CLASSES.names, key=str.lower)
    button.send_keys(Keys.SPACE)
    assert column(browser, table, 0) == sorted(CLASSES.names, key=str.lower, reverse=True)
    assert {row.text for row in found(browser, f"{table} tbody tr")} == rows


def test_report__one_of_several_tables_is_shown(browser):
    def shown(selector):
        return [e.get_attribute("id") for e in found(browser, selector) if e.is_displayed()]

    assert shown("#classes .sheet") == ["classes-published"]
    click(browser, found(browser, "#classes .choice button")[1])
    assert shown("#classes .sheet") == ["classes-strict"]
    assert shown("div.confusion") == ["confusion-cluster+crf"]
    click(browser, found(browser, "#confusion .choice button")[0])
    assert shown("div.confusion") == ["confusion-linear"]
    pressed = [button.get_attribute("aria-pressed") for button in found(browser, "#confusion .choice button")]
    assert pressed == ["true", "false", "false", "false"]


def test_report__an_image_opens_large_and_closes(browser):
    (viewer,) = found(browser, "#viewer")
    images = found(browser, "button.image")
    name = images[0].find_element(By.CSS_SELECTOR, ".name").text
    small = found(browser, "button.image img")[0].size["width"]
    assert not viewer.is_displayed()
    click(browser, images[0])
    assert viewer.is_displayed()
    assert found(browser, "#viewer-name")[0].text == name
    assert len(found(browser, "#viewer-legend .named")) >= 3
    panels = found(browser, "#viewer-panels img")
    assert len(panels) == 4
    assert all(browser.execute_script("return arguments[0].naturalWidth", panel) > 0 for panel in panels)
    assert panels[0].size["width"] > small * 1.5
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    last = browser.execute_script("return arguments[0].querySelector('.name').textContent", images[-1])
    assert found(browser, "#viewer-name")[0].text == last
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert found(browser, "#viewer-name")[0].text == name
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not viewer.is_displayed()
    click(browser, images[1])
    found(browser, "#viewer .close")[0].click()
    assert not viewer.is_displayed()


@pytest.mark.parametrize("width", [1280, 390])
def test_report__light_and_dark_differ_and_are_readable(browser, width):
    """Including every shade of a confusion matrix."""
    backgrounds = {}
    browser.execute_script(SHADES)
    for theme in ("light", "dark"):
        look(browser, theme, width, HEIGHT)
        backgrounds[theme] = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        contrast, text = browser.execute_script(CONTRAST)
        assert contrast >= 4.5, f"{theme}: {text}"
    brightness = {theme: max(map(int, color[4:-1].split(","))) for theme, color in backgrounds.items()}
    assert brightness["light"] > 200
    assert brightness["dark"] < 60


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_report__fits_the_window(browser, width):
    look(browser, "light", width, HEIGHT)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width


def test_report__asks_for_no_other_file(browser):
    requests = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in requests if not name.startswith("data:")] == []
    assert browser.execute_script("return [...document.images].every((img) => img.complete && img.naturalWidth > 0)")


def test_report__confusion_cell_has_a_tooltip(browser):
    cell = found(browser, "[id='confusion-cluster+crf'] td[data-value]")[0]
    browser.execute_script("arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", cell)
    assert cell.get_attribute("title").startswith(
        f"{cell.get_attribute('data-value')} % of {CLASSES.names[0]} predicted"
    )
