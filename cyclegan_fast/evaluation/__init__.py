"""Measures how good translations are, in one pass over the test images that any number of metrics look at.

passes.py makes the pass, base_metric.py says what a metric is, metrics.py lists them; subject.py loads the generators
and the images, score_table.py and worst_and_best.py show what was found. command.py is the command line, fcn/ has the
FCN score.
"""
