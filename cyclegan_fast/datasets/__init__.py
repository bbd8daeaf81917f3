"""Data sets that a command writes: the authors' by download (Zhu et al. 2017), and streets that are drawn."""
