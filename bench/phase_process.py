"""Runs one phase of `bench.gpu`, which starts this file for each of them.

It is a file of its own because processes that compile import the main module of the process that started them, and
should not import all of the benchmarks.
"""

import sys


def main() -> int:
    from bench import gpu

    return gpu.run_phase(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
