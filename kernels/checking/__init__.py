"""Checks the kernels and compiles them ahead: bounds on errors, cases, variants. No operator imports it."""
