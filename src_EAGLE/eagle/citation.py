"""The version and the papers to cite, as ``--version`` prints them."""

from importlib.metadata import PackageNotFoundError, version

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


def version_and_citation() -> str:
    """Name and version of this software, and what to cite, in BibTeX."""
    try:
        found = version(DISTRIBUTION)
    except PackageNotFoundError:
        found = "not installed"
    return f"{DISTRIBUTION} {found}\n\n{_CITATION % found}"
