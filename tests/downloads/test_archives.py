import io
import os
import stat
import tarfile
import zipfile

import pytest

from eagle.downloads import archives
from eagle.downloads.archives import extract_archive, extract_members, member_names
from eagle.errors import DownloadError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "datasets"


def make_zip(path, members, links=()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, target in links:
            link = zipfile.ZipInfo(name)
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, target)
    return path


def make_tar(path, members, links=()):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


needs_filters = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"),
    reason="Python 3.11.0 to 3.11.3 has no safe filters, so tar archives are refused",
)
MAKERS = [pytest.param(make_zip, id="zip"), pytest.param(make_tar, id="tar", marks=needs_filters)]


def assert_refused(archive, folder, *parts):
    before = sorted(folder.parent.rglob("*"))
    with pytest.raises(DownloadError) as error:
        extract_archive(archive, folder)
    assert "\n" not in str(error.value)
    for part in (str(archive), *parts):
        assert part in str(error.value)
    assert [path for path in sorted(folder.parent.rglob("*")) if path not in before and path != folder] == []


@pytest.mark.parametrize("make", MAKERS)
def test_extract__files_folders_and_inner_links(tmp_path, folder, make):
    members = {"set/a/x.txt": b"x", "set/b/y.txt": b"y", "readme": b"r"}
    archive = make(tmp_path / "set.archive", members, [("set/a/link", "../b/y.txt")])
    assert extract_archive(archive, folder) == [folder / "readme", folder / "set"]
    assert {name: (folder / name).read_bytes() for name in members} == members
    assert (folder / "set/a/link").read_bytes() == b"y"
    assert sorted(path.name for path in folder.iterdir()) == ["readme", "set"]


def test_extract__tar_under_a_python_without_safe_filters(tmp_path, folder, monkeypatch):
    """3.11.0 to 3.11.3 refuse tar archives; zip archives and other errors still work."""
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.delattr(tarfile, "FilterError", raising=False)
    monkeypatch.setattr(archives, "_FILTER_ERROR", ())
    assert_refused(make_tar(tmp_path / "set.tar", {"set/x": b"x"}), folder, "use 3.11.4 or later")
    (tmp_path / "damaged.zip").write_bytes(b"not an archive")
    assert_refused(tmp_path / "damaged.zip", folder, "not a zip or tar archive")
    assert extract_archive(make_zip(tmp_path / "set.zip", {"set/x": b"x"}), folder) == [folder / "set"]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["../evil", "set/../../evil", "/tmp/evil", "C:evil", "..\\evil"])
def test_extract__names_that_lead_outside(tmp_path, folder, make, name):
    archive = make(tmp_path / "set.archive", {"set/fine": b"x", name: b"evil"})
    assert_refused(archive, folder, "do not trust")


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("target", ["../..", "/etc/passwd", "../../../evil"])
def test_extract__links_that_lead_outside(tmp_path, folder, make, target):
    assert_refused(make(tmp_path / "set.archive", {"set/x": b"x"}, [("set/link", target)]), folder, "do not trust")


@pytest.mark.parametrize("make", MAKERS)
def test_extract__chain_of_links_that_leads_outside(tmp_path, folder, make):
    archive = make(tmp_path / "set.archive", {"x": b"x"}, [("here", "."), ("here/up", "..")])
    assert_refused(archive, folder, "do not trust")


@needs_filters
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "../../evil"),
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
    ids=["hard link, absolute", "hard link, relative", "link", "character device", "block device", "pipe"],
)
def test_extract__special_members_are_refused(tmp_path, folder, kind, target):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("set/special")
        member.type, member.linkname = kind, target
        archive.addfile(member)
    assert_refused(path, folder, "do not trust")


@needs_filters
def test_extract__tar_may_not_set_privileges(tmp_path, folder):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("set/program")
        member.mode = 0o6777
        archive.addfile(member)
    extract_archive(path, folder)
    assert (folder / "set/program").stat().st_mode & 0o6022 == 0


def test_extract__zip_device_becomes_a_plain_file(tmp_path, folder):
    device = zipfile.ZipInfo("set/device")
    device.external_attr = (stat.S_IFCHR | 0o6666) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(device, b"x")
    extract_archive(tmp_path / "set.zip", folder)
    assert stat.S_ISREG((folder / "set/device").stat().st_mode)


@pytest.mark.parametrize("make", MAKERS)
def test_extract__existing_entry_is_never_overwritten(tmp_path, folder, make):
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "mine").write_text("mine")
    archive = make(tmp_path / "set.archive", {"set/mine": b"theirs"})
    with pytest.raises(DownloadError, match="already exists"):
        extract_archive(archive, folder)
    assert (folder / "set" / "mine").read_text() == "mine"


def test_extract__damaged_zip(tmp_path, folder):
    archive = make_zip(tmp_path / "set.zip", {"set/x": os.urandom(10_000)})
    content = bytearray(archive.read_bytes())
    content[5_000] ^= 0xFF
    archive.write_bytes(content)
    assert_refused(archive, folder, "fetch it again")


@needs_filters
def test_extract__truncated_tar(tmp_path, folder):
    archive = make_tar(tmp_path / "set.tar.gz", {"set/x": os.urandom(10_000)})
    archive.write_bytes(archive.read_bytes()[:5_000])
    assert_refused(archive, folder, "fetch it again")


def test_extract__not_an_archive(tmp_path, folder):
    (tmp_path / "set.zip").write_text("no archive")
    assert_refused(tmp_path / "set.zip", folder, "not a zip or tar archive")


def test_extract__missing_archive(tmp_path, folder):
    assert_refused(tmp_path / "set.zip", folder, "No such file")


def test_extract__more_than_the_disk_holds(tmp_path, folder, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("eagle.downloads.archives.shutil.disk_usage", lambda _: usage)
    archive = make_zip(tmp_path / "set.zip", {"set/x": bytes(2000)})
    with pytest.raises(DownloadError, match="2000 bytes unpacked and 1000 are free"):
        extract_archive(archive, folder)


def test_extract__leftovers_of_a_killed_process_are_cleared(tmp_path, folder):
    leftover = folder / ".set.zip.extracting" / "set"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("half")
    extract_archive(make_zip(tmp_path / "set.zip", {"set/x": b"x"}), folder)
    assert [path.name for path in folder.rglob("*")] == ["set", "x"]


def test_extract_members__chosen_files_under_other_names(tmp_path, folder):
    folder.mkdir()
    path = make_zip(tmp_path / "set.zip", {"set/": b"", "set/a.txt": b"a", "set/b.png": b"b"})
    assert extract_members(path, folder, lambda name: "x/y.txt" if name.endswith(".txt") else None) == 1
    assert [file.relative_to(folder).as_posix() for file in folder.rglob("*")] == ["x", "x/y.txt"]
    assert (folder / "x/y.txt").read_bytes() == b"a"
    assert member_names(path) == ["set/a.txt", "set/b.png"]


def test_extract_members__place_outside_or_taken(tmp_path, folder):
    folder.mkdir()
    path = make_zip(tmp_path / "set.zip", {"a": b"a", "b": b"b"})
    with pytest.raises(DownloadError, match="do not trust"):
        extract_members(path, folder, lambda name: f"../{name}")
    with pytest.raises(DownloadError, match="File exists"):
        extract_members(path, folder, lambda _: "same")
    assert (folder / "same").read_bytes() == b"a"
    assert sorted(tmp_path.iterdir()) == [folder, path]
