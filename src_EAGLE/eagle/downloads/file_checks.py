"""Verify a fetched file before it gets its final name."""

from pathlib import Path

from eagle.errors import DownloadError
from eagle.files import looks_like_html, sha256_of


def rename_verified(part: Path, destination: Path, source: str, *, size: int | None, sha256: str | None) -> None:
    """Rename a complete partial file; delete it and raise DownloadError if it is not the expected file."""
    with part.open("rb") as file:
        defect = "is an HTML page, not the file" if looks_like_html(file.read(1024)) else None
    defect = defect or find_defect(part, size, sha256)
    if defect:
        part.unlink()
        raise DownloadError(f"{source}: the download {defect}; it was deleted: run the command again or fetch by hand")
    part.replace(destination)


def find_defect(path: Path, size: int | None, sha256: str | None) -> str | None:
    """Describe a wrong size or digest, to follow 'the download'; None if both fit."""
    actual = path.stat().st_size
    if size is not None and actual != size:
        return f"has {actual} bytes instead of {size}"
    if sha256 is not None and sha256_of(path) != sha256.lower():
        return f"does not have the SHA-256 {sha256}"
    return None
