"""What `bench.gpu` starts for each of its phases.

A file of its own: processes that compile import the main module of the process that started them, and should not import
all of the benchmarks.
"""

import sys


def main() -> int:
    from bench import gpu

    return gpu.run_phase(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
