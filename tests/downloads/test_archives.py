import os
import stat
import zipfile

import pytest

from eagle.downloads.archives import staged, unpack
from eagle.errors import DataError, DownloadError

ALL = {".*": r"\g<0>"}


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


def unpacked(archive, root, places=ALL):
    with staged(root) as folder:
        unpack(archive, folder, places)


def assert_refused(archive, root, *parts, places=ALL):
    """The error is one line that names the archive, and nothing is left."""
    root.parent.mkdir(exist_ok=True)
    before = sorted(root.parents[1].rglob("*"))
    with pytest.raises((DownloadError, DataError)) as error:
        unpacked(archive, root, places)
    assert "\n" not in str(error.value)
    assert [part for part in (archive.name, *parts) if part not in str(error.value)] == []
    assert sorted(root.parents[1].rglob("*")) == before


def test_unpack__chosen_files_under_other_names(tmp_path, root):
    path = zipped(tmp_path / "set.zip", {"set/": b"", "set/a.txt": b"a", "set/b.png": b"b"})
    unpacked(path, root, {r"set/(\w)\.txt": r"x/\1.md", r"set/c": "c"})
    assert [file.relative_to(root).as_posix() for file in root.rglob("*")] == ["x", "x/a.md"]
    assert (root / "x/a.md").read_bytes() == b"a"
    assert list(root.parent.iterdir()) == [root]
    assert_refused(path, tmp_path / "other/set", "none of the expected files (set/c)", places={"set/c": "c"})


@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/tmp/evil", "C:evil", "..\\evil"])
def test_unpack__names_that_lead_outside(tmp_path, root, name):
    assert_refused(zipped(tmp_path / "set.zip", {"set/fine": b"x", name: b"evil"}), root, "do not trust")


@pytest.mark.parametrize("target", ["../..", "/etc/passwd", "x"])
def test_unpack__links(tmp_path, root, target):
    members = {"set/x": b"x", special("set/link", stat.S_IFLNK | 0o777): target}
    assert_refused(zipped(tmp_path / "set.zip", members), root, "is a link; do not trust")


def test_unpack__device_becomes_a_plain_file_without_privileges(tmp_path, root):
    members = {special("device", stat.S_IFCHR | 0o6777): b"x", special("program", stat.S_IFREG | 0o6777): b"x"}
    unpacked(zipped(tmp_path / "set.zip", members), root)
    modes = [(root / name).stat().st_mode for name in ("device", "program")]
    assert all(stat.S_ISREG(mode) and not mode & 0o6111 for mode in modes)


def test_unpack__two_files_of_one_name(tmp_path, root):
    assert_refused(zipped(tmp_path / "set.zip", {"a": b"a", "b": b"b"}), root, "File exists", places={"[ab]": "same"})


def test_unpack__damaged_or_missing_archive(tmp_path, root):
    archive = zipped(tmp_path / "set.zip", {"set/x": os.urandom(10_000)})
    content = bytearray(archive.read_bytes())
    content[5_000] ^= 0xFF
    for damaged in (content, content[:5_000], b"no archive"):
        archive.write_bytes(damaged)
        assert_refused(archive, root, "fetch it again")
    archive.unlink()
    assert_refused(archive, root, "No such file")


def test_unpack__more_than_the_disk_holds(tmp_path, root, monkeypatch):
    archive = zipped(tmp_path / "set.zip", {"set/x": bytes(2000)})
    monkeypatch.setattr("eagle.downloads.archives.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    assert_refused(archive, root, "2000 bytes unpacked and 1000 are free")


def test_unpack__no_more_than_the_directory_of_the_archive_says(tmp_path, root):
    """A bomb whose sizes lie is stopped at the size that was checked against the disk."""
    archive = zipped(tmp_path / "set.zip", {"x": bytes(5_000_000)})
    sizes = (5_000_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(sizes, (1000).to_bytes(4, "little")))
    assert_refused(archive, root, "damaged archive")


def test_staged__leftovers_of_a_killed_process_are_cleared(tmp_path, root):
    leftover = root.with_name(".set.preparing") / "x"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("half")
    unpacked(zipped(tmp_path / "set.zip", {"x": b"x"}), root)
    assert [path.name for path in root.parent.rglob("*")] == ["set", "x"]
