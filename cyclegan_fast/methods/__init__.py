"""Holds the methods that train two translators: CycleGAN with its ablations, and the baselines of the paper."""
