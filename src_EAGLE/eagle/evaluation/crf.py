"""The dense CRF under its public name; ``maps.crf`` computes it."""

from eagle.maps.crf.dense_crf import dense_crf as dense_crf
