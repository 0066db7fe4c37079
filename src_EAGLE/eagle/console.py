"""What commands print: tables, scores, shell commands, and the version with the papers to cite."""

import shlex
import sys
from collections.abc import Sequence
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
