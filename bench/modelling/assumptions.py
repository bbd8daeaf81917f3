"""Holds what the model takes for granted: figures of GPUs, and efficiencies of kernels, each with where it is from.

"assumption" marks what nobody has measured for this project; a measurement on that GPU replaces it.
"""

from dataclasses import dataclass

from cyclegan_fast.kernels.gpus import GPUS, Gpu


@dataclass(frozen=True)
class GpuFacts:
    """Holds what a prediction needs to know of a GPU beside what a plan depends on."""

    gpu: Gpu
    device: str
    """as its driver names it, and results on it are filed"""
    matrix_tflops: float
    """10^12 operations a second of a large bfloat16 matrix product that sums up in float32"""
    copy_gbps: float
    """10^9 bytes a second, read and written, in a copy of a tensor far larger than any cache"""
    clock_ghz: float
    """of the multiprocessors under load"""
    threads: int
    """the most threads that are resident on a multiprocessor, from the CUDA C++ programming guide"""
    source: str
    """where the speeds are from"""


GPU_FACTS = {
    "h200": GpuFacts(
        GPUS[90], "NVIDIA H200", 790, 4300, 1.75, 2048,
        "matrix products and copies measured on an H200; L2 bandwidth and clock are assumptions",
    ),
    "a100": GpuFacts(
        GPUS[80], "NVIDIA A100-SXM4-40GB", 250, 1400, 1.41, 2048,
        "assumptions: 80% of the data sheet's 312 TFLOP/s, 90% of its memory bandwidth",
    ),
    "4090": GpuFacts(
        GPUS[89], "NVIDIA GeForce RTX 4090", 150, 920, 2.5, 1536,
        "assumptions: 90% of the data sheet's 165 TFLOP/s and of its memory bandwidth",
    ),
    "b200": GpuFacts(
        GPUS[100], "NVIDIA B200", 1600, 7200, 1.85, 2048,
        "assumptions: 70% of the data sheet's 2,250 TFLOP/s, 90% of its memory bandwidth",
    ),
}  # fmt: skip

# --- a launch --------------------------------------------------------------------------------------------------------

NODE_GAP_US = 0.8
"""microseconds between the end of a node of a CUDA graph and the begin of one that waits for it (assumption)"""
KERNEL_FLOOR_US = 1.2
"""microseconds that the smallest kernel takes: its programs start, read, write and end (assumption)"""
MEMORY_LATENCY_US = 0.7
"""microseconds from a load to its data under load, in a program that then computes (assumption)"""
PARTITIONS = 4
"""of a multiprocessor; each issues an instruction of a warp in a clock, and has a quarter of the registers"""

# --- convolutions of the library -------------------------------------------------------------------------------------

LIBRARY_EFFICIENCY = {"forward": 0.80, "dgrad": 0.75, "wgrad": 0.65}
"""speed of cuDNN's large convolutions as a share of a large matrix product's (assumption)"""
TILE_EFFICIENCY = {
    (256, 128): 1.0,
    (128, 256): 1.0,
    (128, 128): 0.9,
    (256, 64): 0.8,
    (128, 64): 0.7,
    (64, 64): 0.5,
    (256, 32): 0.6,
    (128, 32): 0.55,
}
"""speed inside a tile of [pixels, channels] of the result, as a share of the largest tile's (assumption)"""
CONVOLUTION_EDGE_US = 2.0
"""microseconds beside the products of a tile: the first loads and the last stores (assumption)"""
CHANNEL_UNIT = 8
"""tensor cores take channels of 16 bits by 8; fewer are padded (cuDNN developer guide, tensor core operations)"""
OWN_MATRIX_EFFICIENCY = 0.35
"""speed of the products in kernels of this project as a share of a large matrix product's (assumption): of [64, 32],
whose operands come from shared memory in one and a half times the clocks of the product, half of the rest is lost"""
MOST_PARTS_OF_A_SUM = 32
"""the most parts that the sum over pixels of a weight's gradient is divided into (assumption)"""

# --- kernels that move bytes -----------------------------------------------------------------------------------------

ELEMENTWISE_EFFICIENCY = 0.9
"""speed of PyTorch's elementwise kernels as a share of a large copy's (assumption)"""
L2_SHARE = 0.5
"""share of the L2 cache in which a tensor is found again: each half of the chip keeps a copy (assumption)"""
ELEMENTS_OF_A_BLOCK = 512
THREADS_OF_A_BLOCK = 128
"""of PyTorch's elementwise kernels (ATen's CUDALoops.cuh: 128 threads of 4 elements)"""
CHUNK_ELEMENTS, CHUNKS_OF_A_LAUNCH = 65536, 320
"""PyTorch's kernels over lists of tensors take so many elements a block, and so many blocks a launch ..."""
TENSORS_OF_A_LAUNCH = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""... of so many tensors at the most, by the number of lists (ATen's MultiTensorApply.cuh, arguments of 4 KB)"""
SUMS_IN_SEVERAL_BLOCKS = {"all": 131072, "channels": 4096}
"""From so many elements a result on, PyTorch's sums work in several blocks, whose counters another node clears: over a
whole tensor, and over all but the channels (ATen's Reduce.cuh: 256 elements a thread)."""
