"""Exports trained generators as ONNX files and TensorRT engines, verifies and runs them (floor 2 of the project).

The commands are `to_onnx`, `trt`, `verify` and `run`; `runtime.Engine` runs an engine from Python. `graphs/` makes ONNX
graphs, `engines/` builds and describes engines, `device/` runs them on a GPU.
"""
