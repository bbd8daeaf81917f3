"""Lets somebody else's code watch a training and end it early: what it is told, and how it is told."""
