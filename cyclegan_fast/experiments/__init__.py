"""The paper's experiments, run anew: `python -m cyclegan_fast.experiments`."""
