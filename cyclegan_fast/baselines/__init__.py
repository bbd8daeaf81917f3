"""The methods that Zhu et al. 2017 compare CycleGAN with (section 5.1.2), one file each."""
