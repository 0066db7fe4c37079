import os
import stat
import zipfile

import pytest

from eagle.downloads.archives import extract_members, member_names, staged
from eagle.errors import DownloadError


@pytest.fixture
def root(tmp_path):
    return tmp_path / "datasets" / "set"


def zipped(path, members):
    """A zip archive of contents by name, or by ZipInfo."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def special(name, mode):
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def unpack(archive, root, place=lambda name: name):
    with staged(root) as folder:
        return extract_members(archive, folder, place)


def assert_refused(archive, root, *parts, place=lambda name: name):
    """The error is one line that names the archive, and nothing is left."""
    root.parent.mkdir(exist_ok=True)
    before = sorted(root.parents[1].rglob("*"))
    with pytest.raises(DownloadError) as error:
        unpack(archive, root, place)
    assert "\n" not in str(error.value)
    assert [part for part in (archive.name, *parts) if part not in str(error.value)] == []
    assert sorted(root.parents[1].rglob("*")) == before


def test_extract__chosen_files_under_other_names(tmp_path, root):
    path = zipped(tmp_path / "set.zip", {"set/": b"", "set/a.txt": b"a", "set/b.png": b"b"})
    assert unpack(path, root, lambda name: "x/y.txt" if name.endswith(".txt") else None) == 1
    assert [file.relative_to(root).as_posix() for file in root.rglob("*")] == ["x", "x/y.txt"]
    assert (root / "x/y.txt").read_bytes() == b"a"
    assert list(root.parent.iterdir()) == [root]
    assert member_names(path) == ["set/a.txt", "set/b.png"]


@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/tmp/evil", "C:evil", "..\\evil"])
def test_extract__names_that_lead_outside(tmp_path, root, name):
    assert_refused(zipped(tmp_path / "set.zip", {"set/fine": b"x", name: b"evil"}), root, "do not trust")


@pytest.mark.parametrize("target", ["../..", "/etc/passwd", "x"])
def test_extract__links(tmp_path, root, target):
    members = {"set/x": b"x", special("set/link", stat.S_IFLNK | 0o777): target}
    assert_refused(zipped(tmp_path / "set.zip", members), root, "is a link; do not trust")


def test_extract__device_becomes_a_plain_file_without_privileges(tmp_path, root):
    members = {special("device", stat.S_IFCHR | 0o6777): b"x", special("program", stat.S_IFREG | 0o6777): b"x"}
    unpack(zipped(tmp_path / "set.zip", members), root)
    modes = [(root / name).stat().st_mode for name in ("device", "program")]
    assert all(stat.S_ISREG(mode) and not mode & 0o6111 for mode in modes)


def test_extract__place_outside_or_taken(tmp_path, root):
    path = zipped(tmp_path / "set.zip", {"a": b"a", "b": b"b"})
    assert_refused(path, root, "do not trust", place=lambda name: f"../{name}")
    assert_refused(path, root, "do not trust", place=lambda name: f"/tmp/{name}")
    assert_refused(path, root, "File exists", place=lambda _: "same")


def test_extract__damaged_or_missing_archive(tmp_path, root):
    archive = zipped(tmp_path / "set.zip", {"set/x": os.urandom(10_000)})
    content = bytearray(archive.read_bytes())
    content[5_000] ^= 0xFF
    for damaged in (content, content[:5_000], b"no archive"):
        archive.write_bytes(damaged)
        assert_refused(archive, root, "fetch it again")
    archive.unlink()
    assert_refused(archive, root, "No such file")


def test_extract__more_than_the_disk_holds(tmp_path, root, monkeypatch):
    archive = zipped(tmp_path / "set.zip", {"set/x": bytes(2000)})
    monkeypatch.setattr("eagle.downloads.archives.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert_refused(archive, root, "2000 bytes unpacked and 1000 are free")


def test_extract__no_more_than_the_directory_of_the_archive_says(tmp_path, root):
    """A bomb whose sizes lie is stopped at the size that was checked against the disk."""
    archive = zipped(tmp_path / "set.zip", {"x": bytes(5_000_000)})
    sizes = (5_000_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(sizes, (1000).to_bytes(4, "little")))
    assert_refused(archive, root, "damaged archive")


def test_staged__leftovers_of_a_killed_process_are_cleared(tmp_path, root):
    leftover = root.with_name(".set.preparing") / "x"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("half")
    unpack(zipped(tmp_path / "set.zip", {"x": b"x"}), root)
    assert [path.name for path in root.parent.rglob("*")] == ["set", "x"]
