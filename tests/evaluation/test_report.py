"""The report without a browser: its numbers are those of the JSON, its pictures show the scored maps."""

import base64
import io
import re

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from eagle.evaluation.report import best_median_worst, write_report
from tiles import ALL_VOID, CLASS_OF_CLUSTER, CLASSES, EVIL, N_IMAGES, Tiles, evaluated_tiles, json_content, tile_views

HEADLINE = "cluster+crf"
TABLE = np.vstack([CLASSES.palette, [0, 0, 0]]).astype(int)  # −1, void and no class, is black
CLUSTERS = np.concatenate([Tiles().clusters(index).ravel() for index in range(N_IMAGES)])
LABEL = np.concatenate([Tiles().label(index).ravel() for index in range(N_IMAGES)])


@pytest.fixture(scope="module")
def evaluation():
    return evaluated_tiles()


@pytest.fixture(scope="module")
def text(evaluation, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "best_report.html"
    write_report(path, json_content(evaluation), evaluation, tile_views(), {"Training": "name: <b>bold</b>\n"})
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return BeautifulSoup(text, "html.parser")


def pixels(img):
    """The picture stored in an <img>."""
    data = re.fullmatch(r"data:image/(?:png|jpeg);base64,(.*)", img["src"])[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def values(cells):
    return [float(cell["data-value"]) if cell["data-value"] else None for cell in cells]


def swatches(element):
    """Shown names, and their colours."""
    found = element.select(".named")
    colors = [re.search("background:#(......)", named.span["style"])[1] for named in found]
    return {
        named.get_text(): [int(color[i : i + 2], 16) for i in (0, 2, 4)]
        for named, color in zip(found, colors, strict=True)
    }


def looped_accuracy(index):
    """Accuracy by a loop over pixels."""
    clusters, label = Tiles().clusters(index).ravel().tolist(), Tiles().label(index).ravel().tolist()
    right = [
        CLASS_OF_CLUSTER[cluster] == wanted for cluster, wanted in zip(clusters, label, strict=True) if wanted >= 0
    ]
    return 100 * sum(right) / len(right) if right else float("nan")


def test_images__are_kept_as_scored(evaluation):
    """Their accuracies add up to the strict score."""
    assert [image.index for image in evaluation.images] == list(range(N_IMAGES))
    for image in evaluation.images:
        assert (image.ids(HEADLINE) == Tiles().clusters(image.index)).all()
        accuracy = image.accuracy(HEADLINE, CLASS_OF_CLUSTER)
        assert accuracy == pytest.approx(looped_accuracy(image.index), nan_ok=True)
    metric = evaluation.metrics[HEADLINE]
    assert metric.class_of_cluster().tolist() == CLASS_OF_CLUSTER.tolist()
    images = [image for image in evaluation.images if image.index != ALL_VOID]
    labelled = [(image.ids("label") >= 0).sum() for image in images]
    mean = np.average([image.accuracy(HEADLINE, CLASS_OF_CLUSTER) for image in images], weights=labelled)
    assert mean == pytest.approx(metric.scores(count_extra=True).accuracy)
    assert mean < metric.scores(count_extra=False).accuracy


@pytest.mark.parametrize("n_images", [0, 1, 2, 3, 7, 12])
def test_best_median_worst__equals_sorting_by_hand(n_images):
    rng = np.random.default_rng(n_images)
    accuracies = rng.integers(0, 21, n_images).tolist()
    found = best_median_worst([*accuracies, float("nan")], 3)
    order = sorted(range(n_images), key=lambda index: (-accuracies[index], index))
    n = min(3, -(-n_images // 3))
    assert found["best"] == order[:n]
    assert found["worst"] == order[max(n, n_images - n) :][::-1]
    middle = order[n : max(n, n_images - n)]
    assert len(found["median"]) == min(n, len(middle))
    if n_images >= 9:
        assert found["median"] == order[(n_images - 3) // 2 :][:3]
    chosen = [*found["best"], *found["median"], *found["worst"]]
    assert len(chosen) == len(set(chosen)) == min(9, n_images)


def test_page__tables_are_the_json_with_the_headline_first(page, evaluation):
    scores = json_content(evaluation)["scores"]
    names = [*reversed(scores)]
    assert names[0] == HEADLINE
    for row, name in zip(page.select("#scores tbody tr"), names, strict=True):
        means = [
            scores[name][protocol][score] for protocol in ("published", "strict") for score in ("mIoU", "accuracy")
        ]
        assert [cell.get_text() for cell in row.find_all(["th", "td"])] == [name, *(f"{mean:.2f}" for mean in means)]
    for protocol in ("published", "strict"):
        entries = [scores[name][protocol] for name in names]
        rows = page.select(f"#classes-{protocol} tbody tr")
        for class_id, (row, name) in enumerate(zip(rows, CLASSES.names, strict=True)):
            assert swatches(row) == {name: TABLE[class_id].tolist()}
            cells = row.find_all("td")
            share = 100 * (class_id == LABEL).sum() / (LABEL >= 0).sum()
            others = [entry["IoU"][name] for entry in entries[1:]]
            assert values(cells) == [entries[0]["IoU"][name], entries[0]["class_accuracy"][name], share, *others]
        assert [cell.get_text() for cell in cells] == ["–", "–", "0.0", "–", "–", "–"], "an absent class"


def test_page__confusion_is_a_plain_count(page):
    matrix = page.find(id="confusion").table
    rows = matrix.select("tbody tr")
    for class_id, row in enumerate(rows[:3]):
        predicted = CLASS_OF_CLUSTER[CLUSTERS[class_id == LABEL]]
        expected = [100 * (predicted == i).mean() for i in (0, 1, 2, 3, -1)]
        shown = [float(cell.get_text() or 0) for cell in row.find_all("td")]
        assert shown == pytest.approx([share if share >= 0.5 else 0 for share in expected], abs=0.51)
        assert row.select_one(".right") is row.find_all("td")[class_id]
    assert rows[3].td.get_text() == "no pixel has this label"


def test_page__pictures_show_the_ranked_images_in_the_palettes_colours(page, evaluation):
    accuracies = list(map(looped_accuracy, range(N_IMAGES)))
    groups = best_median_worst(accuracies, 3)
    chosen = [(group, index) for group, indices in groups.items() for index in indices]
    for image, (group, index) in zip(page.select("details.image"), chosen, strict=True):
        assert image["data-group"] == group
        named = [span.get_text() for span in image.select(".about span")]
        assert named == [Tiles().name(index), f"{accuracies[index]:.1f} %"]
        shown = {kind: pixels(image.select_one(f"img.{kind}")) for kind in ("image", "label", "prediction", "overlay")}
        label, predicted = Tiles().label(index), CLASS_OF_CLUSTER[Tiles().clusters(index)]
        assert (shown["label"] == TABLE[label]).all()
        assert (shown["prediction"] == TABLE[predicted]).all()
        photograph = np.asarray(Tiles().image(index)).astype(int)
        inner = np.tile(np.pad(np.ones((6, 6), dtype=bool), 3), (2, 3))  # away from the borders of tiles
        assert np.abs(shown["image"] - photograph)[inner].mean() < 5
        assert np.abs(shown["overlay"] - (photograph + TABLE[predicted]) / 2)[inner].mean() < 5
        ids = np.unique([label, predicted])
        assert sorted(swatches(image).values()) == sorted(TABLE[ids].tolist())


def test_page__clusters_have_their_class_and_purity(page):
    rows = page.select("#clusters tbody tr")
    for cluster, row in enumerate(rows):
        class_id = CLASS_OF_CLUSTER[cluster]
        assert row.td["data-value"] == (*CLASSES.names, "no class")[class_id]
        share, purity = values(row.find_all("td")[1:3])
        labels = LABEL[(cluster == CLUSTERS) & (LABEL >= 0)]
        assert share == pytest.approx(100 * len(labels) / (LABEL >= 0).sum())
        assert purity == (pytest.approx(100 * (labels == class_id).mean()) if cluster < 3 else None)


def test_page__is_self_contained_and_escapes_foreign_text(text, page):
    assert not re.search(r"https?://|@import|url\(", text)
    assert all(img["src"].startswith("data:") and img["alt"] for img in page.find_all("img"))
    assert len(page.find_all("script")) == 1
    assert not page.select("section b, header b, i, [onerror]")
    shown = page.get_text()
    strangers = EVIL, 'sky & "sea"', "<img src=x onerror=alert(1)>", "<b>run</b>", "<i>bad.png</i>", "<b>bold</b>"
    assert [stranger for stranger in strangers if stranger not in shown] == []
