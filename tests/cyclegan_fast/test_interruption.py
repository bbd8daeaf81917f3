"""Ctrl-C and SIGTERM in real processes: what is said, what is saved, how soon a command ends, and its exit status."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cyclegan_fast import sample_photos
from cyclegan_fast.checkpoint import load
from tests.cyclegan_fast.test_train import command

ROOT = Path(__file__).parents[2]
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]

BUSY = """
import sys, time
import numpy as np
from cyclegan_fast.errors import run_command
from cyclegan_fast.interruption import Interruption

def wait(seconds):
    time.sleep(seconds)

def in_steps():
    with Interruption(after="this step") as interruption:
        print("begun")
        while not interruption.requested:
            wait_uninterrupted(3.0)
    return interruption.request.status

def wait_uninterrupted(seconds):  # as one call of a library that takes its time: no handler of Python's runs in it
    import ctypes
    libc = ctypes.CDLL(None)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        libc.pause_for_a_while(1) if hasattr(libc, "pause_for_a_while") else libc.usleep(int(seconds * 1e6))

def at_once():
    print("begun")
    wait(60)
    return 0

sys.exit(run_command({"steps": in_steps, "at once": at_once}[sys.argv[1]]))
"""
