"""Gives trained generators away: a folder with weights, configuration and a model card, and the way to a hub."""
