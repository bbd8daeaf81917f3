"""Refuses arguments that no implementation of an operator takes, in the same words whichever was to run.

`tensors.py` checks tensors, `options.py` numbers and names. Every public function calls them before anything else: what
passes is taken by each implementation, but for what `dispatch.choose` says of one.
"""
