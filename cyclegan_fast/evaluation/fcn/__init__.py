"""Computes the FCN score (Zhu et al. 2017, section 5.1.1): a network reads labels out of translated photographs.

judge.py finds or trains that network, which segmentation.py defines; metric.py lets it read a pass, scores.py counts.
"""
