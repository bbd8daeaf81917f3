"""Runs the paper's experiments anew: `python -m cyclegan_fast.experiments`.

plan.py holds the options and the configuration of every run, tables.py trains (training.py) and scores (scoring.py) run
after run, store.py keeps what was found, report.py and agreement.py compare it with the paper (paper_tables.py).
"""
