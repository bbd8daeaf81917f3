"""Holds what watches a training's losses, tells of trouble, and goes back to a checkpoint from before it."""
