"""Trained generators as ONNX files and TensorRT engines, verified against PyTorch (floor 2 of the project)."""
