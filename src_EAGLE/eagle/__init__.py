"""EAGLE: eigen aggregation learning for object-centric unsupervised semantic segmentation (CVPR 2024).

The public interface are the names in ``__init__.pyi``. Each is imported on first use, so that ``import eagle`` is fast.

>>> import eagle
>>> sorted(eagle.__all__)[:3]
['ClusterLookup', 'CorrespondenceLoss', 'LitUnsupervisedSegmenter']
"""

import sys

import lazy_loader

if sys.platform == "win32":
    raise SystemExit("error: EAGLE runs on Linux and macOS; on Windows, run it in WSL (wsl --install)")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
