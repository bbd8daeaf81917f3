"""Image files and pixels: found, decoded, written, and arranged on sheets. Importing this needs no PyTorch."""

from cyclegan_fast.images.files import read_image, write_image
from cyclegan_fast.images.unreadable import UnreadableImage

__all__ = ["UnreadableImage", "read_image", "write_image"]
