"""Transfers styles by optimising pixels (Gatys et al. 2016), with which Zhu et al. 2017 compare CycleGAN (section 5.2).

gatys.py is the command, neural_style.py the method, style_results.py what it leaves. The baselines that are trained are
in methods/.
"""
