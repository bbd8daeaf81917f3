"""Tries plans of the kernels on a GPU and writes those that pay into tables."""
