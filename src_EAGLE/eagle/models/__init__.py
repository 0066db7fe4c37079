"""The frozen backbone, the segmentation head, the probes, and the cache of keys."""
