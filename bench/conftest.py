import os

import torch

# Without a GPU, operators asked for as Triton run in its interpreter, which decides when a kernel is decorated.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
