"""Reads regions of images that are larger than the memory: TIFF with its pyramids, Zarr, and slides of OpenSlide.

opening.py is the way in, scene.py says what every scene gives, and data_mask.py where there is something to see.
"""
