"""Image files and pixels: found, decoded, written, and arranged on sheets. Importing this needs no PyTorch."""
