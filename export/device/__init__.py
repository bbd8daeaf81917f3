"""Deals with the GPU that an engine runs on: its context, its memory, its streams and recorded graphs."""
