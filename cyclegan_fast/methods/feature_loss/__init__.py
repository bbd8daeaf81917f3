"""Holds the baseline "feature loss + GAN" (Zhu et al. 2017, section 5.1.2) and the networks that it compares with."""
