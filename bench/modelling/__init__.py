"""Predicts how long a training step takes on a GPU, node by node; `bench.model` is the command."""
