"""Is a fetched file what was asked for? Only then does it get its final name."""

from pathlib import Path

from eagle.errors import DownloadError
from eagle.files import looks_like_html, sha256_of


def publish(part: Path, destination: Path, source: str, *, size: int | None = None, sha256: str | None = None) -> None:
    """Rename a finished partial file, or delete it and raise DownloadError where it is not what was asked for."""
    with part.open("rb") as file:
        defect = "is an HTML page, not the file" if looks_like_html(file.read(1024)) else None
    defect = defect or defect_of(part, size, sha256)
    if defect:
        part.unlink()
        raise DownloadError(f"{source}: what arrived {defect}; it was deleted, run the command again or fetch by hand")
    part.replace(destination)


def defect_of(path: Path, size: int | None, sha256: str | None) -> str | None:
    """What is wrong with a file, to follow 'what arrived'; None where nothing is."""
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"has {actual} bytes instead of {size}"
    if sha256 is not None and sha256_of(path) != sha256.lower():
        return f"does not have the SHA-256 {sha256}"
    return None
