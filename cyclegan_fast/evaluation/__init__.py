"""Measures how good translations are: one pass over the test images, which any number of metrics look at."""
