"""Translates image files with trained generators: plan, batches, networks, and images too large for the memory."""
