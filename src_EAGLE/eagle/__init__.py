"""EAGLE: eigen aggregation learning for object-centric unsupervised semantic segmentation (CVPR 2024)."""
