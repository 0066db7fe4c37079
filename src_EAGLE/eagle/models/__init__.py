"""The frozen backbone, the segmentation head, the probes, and the keys that are kept."""
