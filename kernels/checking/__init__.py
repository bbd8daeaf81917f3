"""Proves and prepares the kernels: bounds on errors, cases, variants, compiling ahead. No operator imports it."""
