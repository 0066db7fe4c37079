"""The page in headless Chromium, served by the command as people type it, with a tiny random model."""

import http.client
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from conftest import ROOT, TINY_VIT
from eagle.segmenter import LitUnsupervisedSegmenter
from headless_chromium import look, needs_chromium, started_chromium

pytest.importorskip("gradio")

pytestmark = needs_chromium

HEIGHT = 900

NAMES = "[...document.querySelectorAll('#stage li input')].map((input) => input.value)"
PIXELS = "document.querySelector('#stage canvas').toDataURL()"


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """The folder that the server's temporary one is made in."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(tmp_path_factory, uploads):
    path = tmp_path_factory.mktemp("run") / "best.ckpt"
    torch.manual_seed(0)
    cfg = {"pretrained_weights": "random", "backbone_kwargs": TINY_VIT, "dim": 32, "val_res": 64}
    trained = LitUnsupervisedSegmenter(6, cfg)
    torch.save({"state_dict": trained.state_dict(), "hyper_parameters": dict(trained.hparams)}, path)
    command = [sys.executable, ROOT / "src_EAGLE" / "demo.py", f"checkpoint={path}", "port=0", "device=cpu"]
    environment = {**os.environ, "TMPDIR": str(uploads)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:
        yield server.stdout.readline().split()[4]
        server.terminate()
        assert server.wait(20) == 143
        assert server.stderr.read() == ""
    assert list(uploads.glob("eagle-demo-*")) == [], "the server's folder is gone"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with started_chromium(tmp_path_factory.mktemp("chromium"), browser="ALL", performance="ALL") as driver:
        yield driver


@pytest.fixture
def page(chromium, address):
    """A fresh page; afterwards nothing was asked of another address, and the console is empty."""
    look(chromium, "light", 1400, HEIGHT)
    opened(chromium, address)
    yield chromium
    outside = [url for url in requested(chromium) if not url.startswith(address)]
    assert outside == []
    assert [entry["message"] for entry in chromium.get_log("browser")] == []


def opened(browser, address):
    browser.get(address)
    until(browser, "document.querySelector('#stage .empty') && document.querySelector('#picker input')")


def until(browser, script):
    """Wait for a script's value to be true."""
    WebDriverWait(browser, 15, 0.05).until(lambda _: browser.execute_script(f"return {script}"))


def value(browser, script):
    return browser.execute_script(f"return {script}")


def found(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def requested(browser):
    """Addresses that pages have asked since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if url.startswith(("http", "ws", "ftp"))]


def photograph(folder, name="my photo.png", size=(90, 60), seed=0):
    noise = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(folder / name)
    return folder / name


def send(browser, path, name="my photo"):
    """Upload a first photograph."""
    found(browser, "#picker input").send_keys(str(path))
    shown(browser, name)


def shown(browser, name):
    """Wait for the clusters and eigenvectors: leaving the page earlier puts Gradio's complaint into the console."""
    until(browser, f"document.querySelector('#stage .photograph')?.alt === '{name}' && {NAMES}.length")
    tabs = browser.find_elements(By.CSS_SELECTOR, "[role=tab]")
    tabs[2].click()
    until(browser, "document.querySelector('#cue img')")
    tabs[0].click()


def told(browser, text):
    """Wait for a message; returns all of them."""
    toasts = "[...document.querySelectorAll('.toast-body')].map((toast) => toast.textContent).join()"
    until(browser, f"{toasts}.includes('{text}')")
    return value(browser, toasts)


def test_page__segments_names_clusters_and_downloads(page, tmp_path):
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    path = photograph(tmp_path)
    send(page, path)
    shares = value(page, "[...document.querySelectorAll('#stage .share')].map((share) => share.textContent)")
    assert sum(float(share.strip("< %")) for share in shares) == pytest.approx(100, abs=0.5)

    canvas, before, names = found(page, "#stage canvas"), value(page, PIXELS), value(page, NAMES)
    webdriver.ActionChains(page).move_to_element(canvas).perform()
    assert found(page, "#stage .tip").text.split(" · ")[0] in names
    under = found(page, "#stage li.under input").get_attribute("value")
    assert found(page, "#stage .tip").text.startswith(f"{under} · ")

    requested(page)
    found(page, "#opacity input[type=range]").send_keys(Keys.HOME)
    until(page, f"{PIXELS} !== '{before}'")
    field = found(page, "#stage li input")
    field.clear()
    field.send_keys("Blue <sky> & ☁")
    webdriver.ActionChains(page).move_to_element(found(page, "#stage .share")).perform()
    assert not any("/queue/join" in url for url in requested(page)), "neither asks the model again"

    found(page, "#download").click()
    archive = tmp_path / "my_photo_masks.zip"
    WebDriverWait(page, 20, 0.05).until(lambda _: archive.exists())
    with zipfile.ZipFile(archive) as files:
        segments = json.loads(files.read("my_photo_segments.json"))["segments"]
        ids = np.array(Image.open(files.open("my_photo_ids.png")))
        overlay = np.array(Image.open(files.open("my_photo_overlay.png"))).astype(int)
    assert [segment["name"] for segment in segments] == ["Blue <sky> & ☁", *names[1:]]
    assert segments[0]["share"] == pytest.approx((ids == segments[0]["id"]).mean(), abs=1e-6)
    inside = (overlay != 255).all(axis=2)
    assert ids.shape == (60, 90)
    assert np.array_equal(overlay[inside], np.array(Image.open(path)).astype(int)[inside]), "opacity 0"


def test_page__resolution_and_crf_compute_again_and_tabs_show_eigenvectors(page, tmp_path):
    send(page, photograph(tmp_path))
    before = value(page, PIXELS)
    found(page, "#res input").click()
    options = "[role=option]"
    WebDriverWait(page, 10).until(
        lambda _: "96 pixels" in [option.text for option in page.find_elements(By.CSS_SELECTOR, options)]
    )
    page.find_elements(By.CSS_SELECTOR, options)[-1].click()
    until(page, f"{PIXELS} !== '{before}'")
    for tab, selector, titles in ((1, "#vectors", ["Eigenvector 1", "Eigenvector 2"]), (2, "#cue", ["EiCue"])):
        page.find_elements(By.CSS_SELECTOR, "[role=tab]")[tab].click()
        # On patches of 8 pixels of an input of 144×96.
        until(page, f"[...document.querySelectorAll('{selector} img')].some((image) => image.naturalWidth === 18)")
        captions = value(page, f"[...document.querySelectorAll('{selector} figcaption')].map((c) => c.textContent)")
        assert captions[0] == "Photograph"
        assert all(any(caption.startswith(title) for caption in captions) for title in titles)
    page.find_elements(By.CSS_SELECTOR, "[role=tab]")[0].click()
    before = value(page, PIXELS)
    found(page, "#crf input").click()
    until(page, f"{PIXELS} !== '{before}'")


def test_page__mistakes_get_a_message_and_the_page_goes_on(page, tmp_path):
    found(page, "#crf input").click()
    told(page, "choose next")
    broken = tmp_path / "broken <b>.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no more")
    found(page, "#picker input").send_keys(str(broken))
    text = told(page, "cannot be read")
    assert "broken <b>.jpg: cannot be read as an image" in text
    assert "Traceback" not in text
    assert "eagle-demo-" not in text
    large = tmp_path / "large.png"
    large.write_bytes(bytes(33 * 2**20))
    found(page, "#picker input").send_keys(str(large))
    until(page, "document.querySelector('#picker .problem').textContent.includes('large.png: more than 32 MB')")
    send(page, photograph(tmp_path, "one.png", (1, 1)), "one")


def test_page__two_visitors_see_only_their_own(page, address, tmp_path):
    send(page, photograph(tmp_path, "first.png"), "first")
    first, drawn = page.current_window_handle, value(page, PIXELS)
    page.switch_to.new_window("tab")
    opened(page, address)
    assert value(page, "document.querySelector('#stage .frame').hidden")
    send(page, photograph(tmp_path, "second.png", seed=1), "second")
    assert value(page, PIXELS) != drawn
    page.close()
    page.switch_to.window(first)
    found(page, "#crf input").click()
    until(page, f"{PIXELS} !== '{drawn}'")
    assert found(page, "#stage .photograph").get_attribute("alt") == "first"


def test_page__picks_an_example_by_keyboard_and_tells_clusters_by_arrow_keys(page):
    page.execute_script("document.querySelector('#picker [data-name=coffee]').focus()")
    page.switch_to.active_element.send_keys(Keys.ENTER)
    shown(page, "coffee")
    page.execute_script("document.querySelector('#stage canvas').focus()")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert " · " in found(page, "#stage .tip").text


@pytest.mark.parametrize("width", [1400, 390])
def test_page__fits_the_window_in_both_themes(page, address, width):
    backgrounds = []
    for theme in ("light", "dark"):
        look(page, theme, width, HEIGHT)
        opened(page, address)
        assert value(page, "document.documentElement.scrollWidth") == width
        backgrounds.append(value(page, "getComputedStyle(document.body).backgroundColor"))
    assert backgrounds[0] != backgrounds[1]


def test_server__serves_no_files_and_keeps_no_uploads(page, address, uploads, tmp_path):
    send(page, photograph(tmp_path))
    (folder,) = uploads.glob("eagle-demo-*")
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    kept = folder / "kept.png"
    kept.write_bytes(b"x")
    for route in (f"/gradio_api/file={kept}", "/gradio_api/file=/etc/passwd", "/gradio_api/file=https://example.com"):
        assert got(address, route) == (404, "not found")
    kept.unlink()


def test_server__the_page_names_no_other_address(address):
    status, text = got(address, "/")
    assert status == 200
    assert [part[:60] for part in text.split("http")[1:] if not part.startswith(address.removeprefix("http"))] == []


def got(address, route):
    """Status and text of an answer."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    connection.request("GET", route)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
