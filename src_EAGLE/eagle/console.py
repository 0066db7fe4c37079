"""What commands print: tables, scores, shell commands, and the version with the papers to cite."""

import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "eagle-segmentation"

# The facts of CITATION.cff, which an installed copy does not have.
_CITATION = """\
If you use this software, please cite the paper that describes the method and this software:

@inproceedings{kim2024eagle,
  title     = {EAGLE: Eigen Aggregation Learning for Object-Centric Unsupervised Semantic Segmentation},
  author    = {Kim, Chanyoung and Han, Woojung and Ju, Dayun and Hwang, Seong Jae},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2024}
}
@software{eagle_in_the_open,
  title     = {EAGLE in the open: unsupervised semantic segmentation by eigen aggregation learning},
  author    = {{EAGLE in the open contributors}},
  version   = {%s}
}"""


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Align rows below a header and a rule: first column left, the others right if they hold numbers."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(w) if numbers and i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (header, ["-" * w for w in widths], *rows)
    ]
    return "\n".join(lines)


def mean_and_deviation(values: Sequence[float | None]) -> str:
    """``mean ± sample standard deviation``, and of how many if some are undefined; only the mean for a single value."""
    known = [value for value in values if value is not None]
    if not known:
        return f"– (0 of {len(values)})"
    undefined = f" ({len(known)} of {len(values)})" if len(known) < len(values) else ""
    deviation = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.2f}{deviation}{undefined}"


def shell_command(script: Path, *arguments: str) -> str:
    """Return a quoted command that runs ``script`` with this Python interpreter from any folder."""
    return shlex.join([sys.executable, str(script.resolve()), *arguments])


def version_and_citation() -> str:
    """Name and version of this software, and what to cite, in BibTeX."""
    try:
        found = version(DISTRIBUTION)
    except PackageNotFoundError:
        found = "not installed"
    return f"{DISTRIBUTION} {found}\n\n{_CITATION % found}"


def code_version() -> str | None:
    """Return version and commit, e.g. "0.1.0, commit ca3b3d8f1c52-dirty" with changes; None if both are unknown."""
    found, repository = [], Path(__file__).resolve().parents[2]
    with suppress(PackageNotFoundError):
        found.append(version(DISTRIBUTION))
    # An installed copy may lie in another repository.
    if (repository / ".git").exists():
        words = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603  fixed words
            found.append(f"commit {done.stdout.strip()}")
    return ", ".join(found) or None
