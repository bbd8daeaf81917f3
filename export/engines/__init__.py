"""TensorRT engines: the libraries that build them, and the card that describes each."""
