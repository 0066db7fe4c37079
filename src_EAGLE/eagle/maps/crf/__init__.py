"""Dense CRF: compiled kernels on the CPU, tensor operations on a GPU, or pydensecrf."""
