"""Dense CRF settings of the released evaluation, for both backends."""

ITERATIONS = 10
GAUSSIAN_SXY = 1  # pixels
GAUSSIAN_COMPAT = 3
BILATERAL_SXY = 67  # pixels
BILATERAL_SRGB = 3  # of the 256 levels of a channel
BILATERAL_COMPAT = 4
