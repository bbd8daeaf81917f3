"""Plans of the kernels that are tried on a GPU, and the tuner that tries them."""
