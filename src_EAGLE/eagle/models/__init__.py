"""The frozen backbone, the segmentation head and the probes."""
