"""Image files and pixels: found, decoded, written, and arranged on sheets. Importing this needs no PyTorch."""

from cyclegan_fast.images.decoding import UnreadableImage
from cyclegan_fast.images.files import read_image, write_image

__all__ = ["UnreadableImage", "read_image", "write_image"]
