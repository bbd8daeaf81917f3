"""Holds kernels for convolutions of which the library computes more than is needed."""
