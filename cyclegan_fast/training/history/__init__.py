"""Holds what a training takes over from before: weights of others, and the epochs that it counted on other images."""
