"""The page in headless Chromium, served by the command as people type it, with a tiny random model."""

import http.client
import json
import os
import subprocess
import sys
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from test_demo_pieces import write_checkpoint

from conftest import ROOT
from eagle.inference.segmenter import load_segmenter
from headless_chromium import look, needs_chromium, started_chromium
from miniatures import picture, save

pytestmark = needs_chromium

HEIGHT = 900
LEGEND = "[...document.querySelectorAll('#stage .legend-item')].map((row) => row.textContent.trim())"
BASE = "document.querySelector('#stage .base-image')?.src"
MASKS = "[...document.querySelectorAll('#stage .mask')].map((mask) => mask.src).join()"
MESSAGES = "[...document.querySelectorAll('.toast-body')].map((toast) => toast.textContent).join()"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """The folder that the server's temporary one is made in."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "best.ckpt")


@pytest.fixture(scope="module")
def address(checkpoint, uploads):
    command = [sys.executable, ROOT / "src_EAGLE" / "demo.py", f"checkpoint={checkpoint}", "port=0", "device=cpu"]
    environment = {**os.environ, "TMPDIR": str(uploads)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:
        yield server.stdout.readline().split()[4]
        server.terminate()
        assert server.wait(60) == 143
        assert server.stderr.read() == ""
    assert list(uploads.glob("eagle-demo-*")) == [], "the server's folder is gone"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with started_chromium(tmp_path_factory.mktemp("chromium"), browser="ALL", performance="ALL") as driver:
        yield driver


@pytest.fixture
def page(chromium, address):
    """A fresh page; afterwards nothing was asked of another address, and the console has no error."""
    look(chromium, "light", 1400, HEIGHT)
    opened(chromium, address)
    yield chromium
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if url.startswith(("http", "ws", "ftp")) and not url.startswith(address)] == []
    assert [entry["message"] for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def opened(browser, address):
    browser.get(address)
    until(browser, "document.querySelectorAll('#bundled img').length === 8 && document.querySelector('#upload input')")


def until(browser, script):
    """Wait for a script's value to be true; returns it."""
    return WebDriverWait(browser, 30, 0.05).until(lambda _: value(browser, script))


def value(browser, script):
    return browser.execute_script(f"return {script}")


def found(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def photograph(folder, name="my photo.png", size=(90, 60), seed=0):
    save(folder / name, picture(seed, size))
    return folder / name


def send(browser, path):
    """Upload a photograph; returns when its clusters and its eigenvectors are there, and shows the clusters."""
    old = value(browser, BASE)
    upload(browser, path)
    settled(browser, old)


def upload(browser, path):
    until(browser, "document.querySelector('#upload input')").send_keys(str(path))


def settled(browser, old):
    """Leaving the page before its eigenvectors are there puts Gradio's complaint into the console."""
    until(browser, f"{BASE} && {BASE} !== {json.dumps(old)}")
    tabs = browser.find_elements(By.CSS_SELECTOR, "[role=tab]")
    tabs[2].click()
    until(browser, "document.querySelector('#cue img')")
    tabs[0].click()


def choose(browser, field, text):
    """Choose from a list, again where the page has closed or redrawn it, e.g. to show a message."""
    options = "[...document.querySelectorAll('[role=option]')]"

    def chosen(_):
        if not value(browser, f"{options}.length"):
            browser.execute_script("document.activeElement.blur()")
            found(browser, f"#{field} input").click()
        option = value(browser, f"{options}.find((option) => option.textContent.trim().endsWith('{text}'))")
        if option:
            option.click()
        return option

    WebDriverWait(browser, 30, 0.5, [StaleElementReferenceException]).until(chosen)


def downloaded(browser, archive):
    """Click until the file is there: on a busy machine the answer to a click is lost now and then."""

    def clicked(_):
        found(browser, "#download").click()
        with suppress(TimeoutException):
            return WebDriverWait(browser, 10, 0.05).until(lambda _: archive.is_file())

    WebDriverWait(browser, 30).until(clicked)
    return archive


def told(browser, text):
    """Wait for a message; returns all of them."""
    until(browser, f"{MESSAGES}.includes({json.dumps(text)})")
    return value(browser, MESSAGES)


@pytest.mark.slow
def test_page__slides_from_coarse_to_fine_clusters(page, checkpoint, tmp_path):
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    path = photograph(tmp_path)
    send(page, path)
    segmenter = load_segmenter(checkpoint, device="cpu")
    for n in (4, 16, 32):
        before, number = value(page, MASKS), found(page, "#clusters input[type=number]")
        number.send_keys(Keys.CONTROL, "a")
        number.send_keys(str(n), Keys.TAB)
        until(page, f"{MASKS} !== {json.dumps(before)}")
        expected = segmenter.segment(path, n_clusters=n)
        assert len(value(page, LEGEND)) == len(expected.shares())
    with zipfile.ZipFile(downloaded(page, tmp_path / "my_photo_masks.zip")) as masks:
        expected.save(tmp_path, "expected")
        assert masks.read("my_photo_ids.png") == (tmp_path / "expected_ids.png").read_bytes()


def test_page__segments_renames_and_downloads(page, tmp_path):
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    path = photograph(tmp_path)
    send(page, path)
    legend = value(page, LEGEND)
    assert sum(float(row.split("%")[0].strip("\u2007<")) for row in legend) == pytest.approx(100, abs=0.5)
    webdriver.ActionChains(page).move_to_element(found(page, "#stage .image-container")).perform()
    under = until(page, "document.querySelector('#stage .legend-item.under')?.textContent.trim()")
    assert found(page, "#stage .image-container").get_attribute("title") == under
    assert under in legend

    colors = value(
        page, "[...document.querySelectorAll('#stage .legend-item')].map((r) => getComputedStyle(r).backgroundColor)"
    )
    assert all(color.startswith("rgb(") for color in colors), "opaque, as in the picture"

    found(page, "#opacity input[type=range]").send_keys(Keys.HOME)
    until(page, "getComputedStyle(document.querySelector('#stage .mask')).opacity === '0'")
    assert not found(page, "#split").is_enabled()
    found(page, "#stage .legend-item").click()
    until(
        page, "document.querySelector('#join input').disabled === false && !document.querySelector('#split').disabled"
    )
    found(page, "#join input").click()
    until(page, "document.querySelectorAll('[role=option]').length")
    found(page, "#heading").click()  # leaves the list without a choice
    until(page, "!document.querySelectorAll('[role=option]').length")
    found(page, "#stage .legend-item").click()
    until(page, "document.activeElement.matches('#name input')")
    page.switch_to.active_element.send_keys("Blue <sky> & ☁", Keys.ENTER)
    until(page, f"{LEGEND}[0].endsWith('  Blue <sky> & ☁')")

    with zipfile.ZipFile(downloaded(page, tmp_path / "my_photo_masks.zip")) as files:
        segments = json.loads(files.read("my_photo_segments.json"))["segments"]
        ids = np.array(Image.open(files.open("my_photo_ids.png")))
        overlay = np.array(Image.open(files.open("my_photo_overlay.png"))).astype(int)
    assert [segment["name"] for segment in segments] == ["Blue <sky> & ☁", *(row.split("  ")[1] for row in legend[1:])]
    assert segments[0]["share"] == pytest.approx((ids == segments[0]["id"]).mean(), abs=1e-6)
    assert ids.shape == (60, 90)
    assert value(page, MESSAGES) == ""
    unchanged = (overlay == np.array(Image.open(path))).all(axis=2)
    colors = {tuple(int(segment["color"][i : i + 2], 16) for i in (1, 3, 5)) for segment in segments}
    assert {tuple(pixel) for pixel in overlay[~unchanged].tolist()} <= colors, "opacity 0: outlines alone"
    assert unchanged.mean() > 0.5


@pytest.mark.slow
def test_page__settings_compute_again_and_tabs_show_eigenvectors(page, tmp_path):
    choose(page, "refine", "CRF")
    told(page, "choose next")
    choose(page, "refine", "none")
    send(page, photograph(tmp_path))
    for field, text in (("res", "96"), ("refine", "spectral"), ("refine", "spectral + CRF"), ("refine", "none")):
        before = value(page, MASKS)
        choose(page, field, text)
        until(page, f"{MASKS} !== {json.dumps(before)}")
    for tab, gallery, caption in ((1, "vectors", "Eigenvector 2"), (2, "cue", "EiCue")):
        page.find_elements(By.CSS_SELECTOR, "[role=tab]")[tab].click()
        assert caption in value(page, f"document.querySelector('#{gallery}').textContent")


@pytest.mark.slow
def test_page__mistakes_get_a_message_and_the_page_goes_on(page, tmp_path):
    broken = tmp_path / "broken <b>.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no more")
    upload(page, broken)
    text = told(page, "cannot be read")
    assert "broken <b>.jpg: cannot be read as an image" in text
    assert "Traceback" not in text
    assert "eagle-demo-" not in text
    choose(page, "res", "96")
    upload(page, photograph(tmp_path, "long.png", (6400, 64)))
    told(page, "patches are more than")
    send(page, photograph(tmp_path, "one.png", (1, 1)))


@pytest.mark.slow
def test_page__two_visitors_see_only_their_own(page, address, tmp_path):
    send(page, photograph(tmp_path, "first.png"))
    first, drawn = page.current_window_handle, value(page, BASE)
    page.switch_to.new_window("tab")
    opened(page, address)
    assert value(page, BASE) is None
    send(page, photograph(tmp_path, "second.png", seed=1))
    assert value(page, BASE) != drawn
    page.close()
    page.switch_to.window(first)
    masks = value(page, MASKS)
    choose(page, "refine", "CRF")
    until(page, f"{MASKS} !== {json.dumps(masks)}")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
def test_page__fits_the_window_in_both_themes_with_an_example(page, address, width):
    backgrounds = []
    for theme in ("light", "dark"):
        look(page, theme, width, HEIGHT)
        opened(page, address)
        page.find_elements(By.CSS_SELECTOR, "#bundled button")[2].click()
        settled(page, None)
        assert value(page, "document.documentElement.scrollWidth") == width
        backgrounds.append(value(page, "getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]


@pytest.mark.slow
def test_server__serves_no_files_and_keeps_no_uploads(page, address, uploads, tmp_path):
    send(page, photograph(tmp_path))
    (folder,) = uploads.glob("eagle-demo-*")
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    kept = folder / "kept.png"
    kept.write_bytes(b"x")
    for route in (f"/gradio_api/file={kept}", "/gradio_api/file=/etc/passwd", "/gradio_api/file=https://example.com"):
        assert got(address, route) == (404, "not found")
    kept.unlink()


def got(address, route):
    """Status and text of an answer."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", route)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
