"""Runs the phases of `python -m bench.gpu`: processes, shares of the time, cases, tests, compiling ahead, summary."""
