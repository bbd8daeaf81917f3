"""Holds the images that are trained on and tested with: finds, decodes and prepares them, and gathers batches.

images/ reads single files; datasets/ writes whole data sets.
"""
