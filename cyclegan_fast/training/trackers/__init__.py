"""Brings a training's values and pictures to where people compare runs: TensorBoard, Weights & Biases, MLflow, Trackio.

tracker.py says what a tracker is, tracking.py lets it watch a training, and choice.py finds those that `--track` names.
"""
