"""The report without a browser: its numbers are those of the JSON, its pictures show the scored maps."""

import base64
import io
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from eagle.evaluation.image_results import best_median_worst
from eagle.reports.html.page import write_report
from eagle.reports.html.tables import confusion
from tiles import CLASS_OF_CLUSTER, CLASSES, COLORS, EVIL, Tiles, evaluated_tiles, json_content, tile_views

CONFIGURATIONS = {"Evaluation": "res: 24\n", "Training": "name: <b>bold</b>\n"}
PALETTE = CLASSES.palette
BLACK = [0, 0, 0]


@pytest.fixture(scope="module")
def evaluation():
    return evaluated_tiles()


@pytest.fixture(scope="module")
def content(evaluation):
    return json_content(evaluation)


@pytest.fixture(scope="module")
def path(evaluation, content, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "best_report.html"
    write_report(file, content, evaluation, tile_views(), CONFIGURATIONS)
    return file


@pytest.fixture(scope="module")
def page(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pixels(img):
    """The picture stored in an <img>."""
    head, data = img["src"].split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
    assert picture.shape[:2] == (int(img["height"]), int(img["width"])) or img["width"] == "96"
    return picture


def swatch(element):
    """The colour that a legend shows."""
    style = element.select_one(".swatch")["style"]
    return [int(part, 16) for part in re.fullmatch(r"background:#(..)(..)(..)", style).groups()]


def text_of(element):
    return " ".join(element.get_text(" ").split())


def test_page__cards_are_the_json(page, content):
    cards = page.select(".score-card")
    assert [card["data-map"] for card in cards] == list(content["scores"])
    for card, entry in zip(cards, content["scores"].values(), strict=True):
        for protocol in ("published", "strict"):
            shown = [cell.get_text() for cell in card.select(f"tr.{protocol} td")]
            assert shown == [f"{entry[protocol][score]:.2f}" for score in ("mIoU", "accuracy")]


@pytest.mark.parametrize("protocol", ["published", "strict"])
def test_page__class_table_is_the_json(page, content, protocol):
    scores = content["scores"]
    rows = page.select(f"#classes-{protocol} tbody tr")
    assert [row.th["data-value"] for row in rows] == list(CLASSES.names)
    for row, color in zip(rows, PALETTE.tolist(), strict=True):
        name = row.th["data-value"]
        expected = [entry[protocol]["IoU"][name] for entry in scores.values()]
        expected.append(scores["cluster+crf"][protocol]["class_accuracy"][name])
        cells = row.find_all("td")[1:]
        assert [float(cell["data-value"]) if cell["data-value"] else None for cell in cells] == expected
        assert [cell.get_text() for cell in cells] == ["–" if v is None else f"{v:.2f}" for v in expected]
        assert swatch(row) == color
    means = [cell.get_text() for cell in page.select(f"#classes-{protocol} tfoot td")]
    overall = [entry[protocol]["mIoU"] for entry in scores.values()] + [scores["cluster+crf"][protocol]["accuracy"]]
    assert means == ["", *(f"{value:.2f}" for value in overall)]
    shares = [float(row.td["data-value"]) for row in rows]
    labels = np.concatenate([Tiles().label(index).ravel() for index in range(len(Tiles()))])
    assert shares == pytest.approx([100 * (labels == i).sum() / (labels >= 0).sum() for i in range(4)])


def test_page__an_absent_class_is_a_dash_in_every_map(page):
    (row,) = [row for row in page.select("#classes-published tbody tr") if row.th["data-value"] == "never seen"]
    assert [cell.get_text() for cell in row.find_all("td")] == ["0.0", *["–"] * 5]


def test_page__confusion_matrix_has_labels_as_rows(page, content):
    """Cells by a plain count; the diagonal is the JSON's strict accuracy of a class."""
    clusters = np.concatenate([Tiles().clusters(index).ravel() for index in range(len(Tiles()))])
    label = np.concatenate([Tiles().label(index).ravel() for index in range(len(Tiles()))])
    matrix = page.find(id="confusion-cluster+crf").table
    assert [th["title"] for th in matrix.select("thead th")] == [*CLASSES.names, "no class"]
    rows = matrix.select("tbody tr")
    assert [row.th["title"] for row in rows] == list(CLASSES.names)
    for class_id, row in enumerate(rows[:3]):
        predicted = CLASS_OF_CLUSTER[clusters[label == class_id]]
        expected = [100 * (predicted == i).mean() for i in (0, 1, 2, 3, -1)]
        shown = [float(cell.get("data-value", 0)) for cell in row.find_all("td")]
        assert shown == pytest.approx([value if value >= 0.5 else 0 for value in expected], abs=0.051)
        accuracy = content["scores"]["cluster+crf"]["strict"]["class_accuracy"][CLASSES.names[class_id]]
        assert expected[class_id] == pytest.approx(accuracy)
        assert "right" in row.find_all("td")[class_id]["class"]
    assert text_of(rows[3]) == "never seen no pixel has this label"


def test_confusion__rows_sum_to_100_percent(evaluation):
    for metric in evaluation.metrics.values():
        table = confusion(metric, CLASSES)
        assert [row is None for row in table.shares] == [False, False, False, True]
        assert all(sum(row) == pytest.approx(100) for row in table.shares if row is not None)
        assert [share for *_, share in table.largest] == sorted((s for *_, s in table.largest), reverse=True)
    assert len(confusion(evaluation.metrics["linear"], CLASSES).predicted) == 4, "the linear probe has no other cluster"


def test_page__shows_the_ranked_images(page, evaluation):
    groups = best_median_worst(evaluation.details.images, CLASS_OF_CLUSTER, 3)
    for title, images in groups.items():
        shown = page.select(f'button.image[data-group="{title}"]')
        assert [button.select_one(".name").get_text() for button in shown] == [Tiles().name(r.index) for _, r in images]
        accuracies = [button.select_one(".accuracy").get_text() for button in shown]
        assert accuracies == [f"{accuracy:.1f} %" for accuracy, _ in images]


def test_page__pictures_show_ids_in_the_palettes_colours(page, evaluation):
    table = np.vstack([PALETTE, BLACK])
    groups = best_median_worst(evaluation.details.images, CLASS_OF_CLUSTER, 3)
    results = [result for images in groups.values() for _, result in images]
    buttons = page.select("button.image")
    assert len(buttons) == len(results) == 9
    for button, result in zip(buttons, results, strict=True):
        label, predicted = Tiles().label(result.index), CLASS_OF_CLUSTER[Tiles().clusters(result.index)]
        shown = {
            title: pixels(button.select_one(f".panel-{title}")) for title in ("image", "label", "prediction", "overlay")
        }
        assert (shown["label"] == table[label]).all()
        assert (shown["prediction"] == table[predicted]).all()
        photograph = np.asarray(Tiles().image(result.index)).astype(int)
        inner = np.zeros(label.shape, dtype=bool)  # away from borders, which the overlay draws in white
        for top in range(0, label.shape[0], 12):
            for left in range(0, label.shape[1], 12):
                inner[top + 3 : top + 9, left + 3 : left + 9] = True
        assert np.abs(shown["image"] - photograph)[inner].mean() < 5
        assert np.abs(shown["overlay"] - (photograph + table[predicted]) / 2)[inner].mean() < 5


def test_page__no_picture_is_blank(page):
    pictures = page.find_all("img")
    assert len(pictures) == 9 * 4 + 4 * 6, "images, and windows of the four clusters that occur"
    for img in pictures:
        assert pixels(img).std(axis=(0, 1)).max() > 1


def test_page__legends_name_every_class_in_its_colour(page):
    colors = {**dict(zip(CLASSES.names, PALETTE.tolist(), strict=True)), "void, no class": BLACK}
    legend = page.select("#legend li")
    assert [text_of(item) for item in legend] == [*CLASSES.names, "void, no class"]
    for item in legend:
        assert swatch(item) == colors[text_of(item)]
    for button in page.select("button.image"):
        named = button.select(".legend .named")
        drawn = [pixels(button.select_one(f".panel-{title}")).reshape(-1, 3) for title in ("label", "prediction")]
        assert {tuple(swatch(item)) for item in named} == {tuple(color) for color in np.concatenate(drawn).tolist()}
        assert all(swatch(item) == colors[text_of(item)] for item in named)


def test_page__clusters_have_the_jsons_class_and_their_own_windows(page, content):
    rows = page.select("table.clusters tbody tr")
    assignment = content["class_map"]["assignments"]["cluster+crf"]
    assert [int(row.th.get_text()) for row in rows] == list(range(5))
    for cluster, row in enumerate(rows):
        class_id = assignment[cluster]
        assert row.select_one(".class")["data-value"] == (CLASSES.names[class_id] if class_id >= 0 else "no class")
        assert swatch(row.select_one(".class")) == (PALETTE[class_id].tolist() if class_id >= 0 else BLACK)
        examples = row.select(".examples img")
        assert len(examples) == (0 if cluster == 3 else 6)
        for img in examples:
            assert np.abs(pixels(img).mean(axis=(0, 1)) - COLORS[cluster]).max() < 6
    clusters = np.concatenate([Tiles().clusters(index).ravel() for index in range(len(Tiles()))])
    label = np.concatenate([Tiles().label(index).ravel() for index in range(len(Tiles()))])
    shown = [float(row.select_one(".share")["data-value"]) for row in rows]
    assert shown == pytest.approx([100 * (clusters[label >= 0] == i).mean() for i in range(5)])
    purity = [row.select_one(".purity")["data-value"] for row in rows]
    assert purity[3:] == ["", ""], "an empty cluster and one without a class"
    own = [(label[(clusters == i) & (label >= 0)] == CLASS_OF_CLUSTER[i]).mean() for i in range(3)]
    assert [float(value) for value in purity[:3]] == pytest.approx([100 * value for value in own])
    assert EVIL in text_of(rows[2].select_one(".labels"))


def test_page__is_self_contained(path, page):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    for element in page.find_all(True):
        for attribute in ("src", "href", "action", "data", "poster", "srcset"):
            assert str(element.get(attribute, "#")).startswith(("data:", "#")), element.name
    policy = page.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    assert path.stat().st_size < 500_000


def test_page__foreign_text_is_escaped(page):
    """Names of classes, files and folders, lines about bad files, and configuration."""
    assert len(page.find_all("script")) == 1
    assert not page.select("section b, header b, i, [onerror], img:not([alt])")
    assert all(img["src"].startswith("data:") for img in page.find_all("img"))
    text = text_of(page)
    for stranger in (
        EVIL,
        'sky & "sea"',
        "<img src=x onerror=alert(1)>",
        "<b>run</b>",
        "<i>bad.png</i>",
        "<b>bold</b>",
    ):
        assert stranger in text


def test_page__file_names_that_are_not_utf8(evaluation, content, tmp_path, monkeypatch):
    monkeypatch.setattr(Tiles, "name", lambda *_: "broken\udcff")
    write_report(tmp_path / "report.html", content, evaluation, tile_views(), {})
    assert "broken\\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_page__without_extra_clusters_has_one_class_table(evaluation, content, tmp_path):
    """If no pixel is in an extra cluster, both protocols agree."""
    scores = {
        name: {"published": entry["strict"], "strict": entry["strict"]} for name, entry in content["scores"].items()
    }
    write_report(tmp_path / "report.html", content | {"scores": scores}, evaluation, tile_views(), {})
    page = BeautifulSoup((tmp_path / "report.html").read_text(encoding="utf-8"), "html.parser")
    assert len(page.select("table.classes")) == 1
    assert len(page.select(".score-card tr.strict")) == 4


def test_confusion__shades_and_numbers_agree(page):
    for cell in page.select("table.matrix td[data-value]"):
        assert cell["class"][0] == f"s{min(10, int(float(cell['data-value']) / 10 + 0.5))}"
        assert abs(float(cell["data-value"]) - int(cell.get_text())) <= 0.56
