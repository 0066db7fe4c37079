"""Predicted label maps as PNG files: ids survive the round trip for any number of classes."""

import numpy as np
import pytest
from PIL import Image

from eagle.data.datasets.base import Classes
from eagle.data.images import read_label
from eagle.data.labels import NO_CLASS, distinct_palette, id_type, write_colored_ids, write_ids
from eagle.errors import DataError
from eagle.evaluation.evaluator import PredictionFolder


@pytest.mark.parametrize(
    ("n_ids", "mode", "none"), [(2, "L", 255), (255, "L", 255), (256, "I;16", 65535), (300, "I;16", 65535)]
)
def test_write_ids__every_id_and_void_survive_the_round_trip(tmp_path, n_ids, mode, none):
    ids = np.arange(-1, n_ids).reshape(1, -1)
    write_ids(tmp_path / "a.png", ids, n_ids)
    assert Image.open(tmp_path / "a.png").mode == mode
    assert read_label(tmp_path / "a.png").tolist() == [[none, *range(n_ids)]]
    for image in (ids[:, 1:], ids[:, 1:2]):
        write_ids(tmp_path / "b.png", image, n_ids)
        assert Image.open(tmp_path / "b.png").mode == mode, "for any ids in the image"


def test_id_type__too_many_ids_for_a_png_are_refused():
    assert id_type(65535) == np.uint16
    with pytest.raises(DataError, match=r"65536 classes or clusters: a label map holds at most 65535"):
        id_type(65536)


@pytest.mark.parametrize(("n_ids", "mode"), [(255, "P"), (256, "RGB"), (300, "RGB")])
def test_write_colored_ids__viewers_see_the_palette(tmp_path, n_ids, mode):
    ids, palette = np.arange(-1, n_ids).reshape(1, -1), distinct_palette(n_ids)
    write_colored_ids(tmp_path / "a.png", ids, palette)
    image = Image.open(tmp_path / "a.png")
    assert image.mode == mode
    assert np.asarray(image.convert("RGB"))[0].tolist() == [[0, 0, 0], *palette.tolist()]


class OneImage:
    def __len__(self):
        return 1

    def name(self, index):
        return "photo"


def test_prediction_folder__maps_clusters_above_255_to_classes(tmp_path):
    clusters = np.arange(300).reshape(15, 20)
    class_of_cluster = np.full(300, NO_CLASS)
    class_of_cluster[[0, 1, 299]] = [1, 0, 1]
    folder = PredictionFolder(tmp_path, OneImage())
    folder.write("cluster", 0, clusters)
    folder.finish({"cluster": class_of_cluster}, Classes(("sky", "road"), distinct_palette(2)))
    image = Image.open(tmp_path / "cluster/ids/photo.png")
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), np.where(class_of_cluster < 0, 255, class_of_cluster)[clusters])
