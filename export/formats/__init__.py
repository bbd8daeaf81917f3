"""Makes a generator in each format of deployment, runs it here where that can be done, and tabulates both.

A file for each format says what it needs, how it is made and how it is run, or why it cannot be; `registry` lists them
all, `jobs` makes each in a process of its own, and `table` shows what came of it.
"""
