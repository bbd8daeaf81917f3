"""Holds the parts of an update: decisions, passes, gradients, averages and pools; training/step.py puts them together."""
