"""Writes data sets: the authors' (Zhu et al. 2017), which are downloaded, and streets, which are drawn."""
