"""Convolves from and to the few channels of an image: `convolution` has the operators, the other files their kernels.

Tensor cores take result channels by the 8, and libraries compute them in tiles of 32 or more, of which an image uses
three. The columns of a matrix product here are the taps of a row of the kernel as well, each with the image's channels:
4 K columns for a kernel of K taps a row, and as many programs as it takes to have all channels. A tensor is called thin
if a group of it has at most sixteen channels.
"""
