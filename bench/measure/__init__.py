"""Measures, compares and records times and memory; knows nothing of what is measured or how results are shown."""
