"""Holds operators that read each element once, each as one launch where PyTorch makes several.

`mean_error` computes a loss, `bias_activation` what follows a convolution that owns a bias, `signed_windows` the images
of a batch, `image_exchange` what a pool of images returns and keeps, `adam_update` the weights. `partial_sums` adds up
what their programs leave.
"""
