"""Makes ONNX graphs: reproducible bytes, precision by types, pixels in and out, 8-bit quantisation."""
