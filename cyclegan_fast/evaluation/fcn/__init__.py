"""The FCN score (Zhu et al. 2017, section 5.1.1): a network reads labels out of translated photographs."""
