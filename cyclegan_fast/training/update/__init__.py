"""Holds the parts of an update: decisions, passes, gradients, averages, pools; training/step.py combines them."""
