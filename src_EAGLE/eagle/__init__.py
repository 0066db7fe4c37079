"""EAGLE: eigen aggregation learning for object-centric unsupervised semantic segmentation (CVPR 2024)."""

import sys

if sys.platform == "win32":
    raise SystemExit("error: EAGLE runs on Linux and macOS; on Windows, run it in WSL (wsl --install)")
