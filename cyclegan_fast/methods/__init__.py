"""The ways to train two translators: CycleGAN and its ablations, and the baselines that it was compared with."""
