"""Builds TensorRT engines: the libraries that do it, and the card that describes each engine."""
