"""Faults by the hundred: processes killed, disks filled, files damaged, input that nobody expected.

    python -m tests.faults                      every campaign, at its full count
    python -m tests.faults kills disks --count 20 --seed 7

A campaign is a file here. It makes faults at random from a seed, and says of each what came of it: nothing that was
saved may be lost, nothing may be wrong in silence, and no fault may end in a traceback. docs/reliability.md has the
promises.
"""
