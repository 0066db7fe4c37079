"""From features to the maps of a probe: mirrored copy, windows, probes, refinement and the dense CRF."""
