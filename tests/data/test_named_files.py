from pathlib import Path

import pytest

from eagle.data.images import read_image
from eagle.data.named_files import bundled_photographs, named_files, output_names
from eagle.errors import DataError


def test_named_files__once_each_as_named_and_folders_sorted(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    for name in ("2.PNG", "1.jpg", ".hidden.png", "notes.txt", "clip.mp4", "../z.bin"):
        (folder / name).touch()
    words = [str(tmp_path / "z.bin"), str(folder), str(folder / "2.PNG")]
    assert [path.name for path in named_files(words)] == ["z.bin", "1.jpg", "2.PNG"]
    assert [path.name for path in named_files(words[1:], (".mp4",))] == ["1.jpg", "2.PNG", "clip.mp4"]


def test_named_files__missing_path_or_empty_folder_raises(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder"):
        named_files([str(tmp_path / "nowhere")])
    with pytest.raises(DataError, match=r"contains none of \.jpg"):
        named_files([str(tmp_path)])


def test_output_names__unique_whatever_the_order():
    files = [Path(name) for name in ("z/a_2.png", "x/a.png", "y/a.png", "w/a.jpg", "v/b.png")]
    assert output_names(files) == ["a_2", "a", "a_3", "a_4", "b"]


def test_output_names__leave_room_for_endings_in_bytes():
    names = output_names([Path(f"{'漢' * 79}{ending}.jpg") for ending in ("", "a", "漢漢")])
    assert len(set(names)) == 3
    assert all(name.startswith("漢" * 60) and len(f"{name}_overlay.png".encode()) < 255 for name in names)
    assert output_names([Path("漢" * 60)]) == ["漢" * 60]


def test_bundled__colour_photographs_sorted_by_name():
    paths = bundled_photographs()
    assert [path.name for path in paths] == sorted(path.name for path in paths)
    for path in paths:
        red, green, blue = read_image(path).resize((32, 32)).split()
        assert red.tobytes() != green.tobytes() != blue.tobytes()
