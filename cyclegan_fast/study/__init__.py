"""The perceptual study of the CycleGAN paper (Zhu et al. 2017, section 5.1.1): its page, its sessions, its analysis."""
