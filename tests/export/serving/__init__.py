"""Tests of the service and of Triton's repositories."""
