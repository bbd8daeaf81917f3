"""Holds what commands need of the machine: errors, files, devices, processes, signals, progress; no CycleGAN."""
