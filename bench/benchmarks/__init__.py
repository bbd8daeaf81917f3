"""Measures contenders against each other under pytest-benchmark: `pytest bench/ --benchmark-only`."""
