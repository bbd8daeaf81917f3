import os

# Tests compute on tiny tensors, where a second thread only costs; it is set before torch starts its own.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Without a GPU the Triton kernels run in Triton's interpreter, which decides when a kernel is decorated.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
