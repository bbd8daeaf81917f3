import os

# Tests compute on tiny tensors, where a second thread only costs; it is set before torch starts its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")
