"""Holds benchmarks: commands here, and `pytest bench/ --benchmark-only` in `bench.benchmarks`."""
