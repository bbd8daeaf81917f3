"""Divides elements among programs, and adds up the sums that the programs leave, in one order: the bits repeat."""

import torch
from torch import Tensor

from .. import plans
from ..launching import run_kernel
from ..triton_language import tl, triton

MOST_PROGRAMS = 512
"""as many as keep the memory of the GPUs in `kernels.gpus` busy, at 4 warps each"""
SUMS_PER_BLOCK = 128


def elements_per_program(elements: int, block: int, *, alone: int = 1) -> int:
    """Return how many elements a program takes, in whole blocks.

    Args:
        elements: how many there are.
        block: how many a program has at a time.
        alone: how many blocks one program takes alone, because it is through sooner than a second launch.
    """
    blocks = plans.ceil_div(elements, block)
    return block * (blocks if blocks <= alone else plans.ceil_div(blocks, MOST_PROGRAMS))


@triton.jit(do_not_specialize=["programs", "columns"])
def column_sums(
    x_ptr,  # [PROGRAMS, COLUMNS], float32
    sums_ptr,  # [COLUMNS]: written
    programs,
    columns,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write the sum of each column of x; the grid is (blocks of BLOCK_COLUMNS columns, 1, 1)."""
    column = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, programs, BLOCK_ROWS):
        row = start + tl.arange(0, BLOCK_ROWS)
        mask = (row < programs)[:, None] & (column < columns)[None, :]
        total += tl.load(x_ptr + row[:, None] * columns + column[None, :], mask=mask, other=0.0)
    sums = tl.sum(total, axis=0)
    tl.store(sums_ptr + column, sums.to(sums_ptr.dtype.element_ty), mask=column < columns)


def sum_of_columns(partial: Tensor, dtype: torch.dtype) -> Tensor:
    """Launch the sum of each column of float32 [programs, columns]; return [columns] in `dtype`."""
    programs, columns = partial.shape
    sums = torch.empty(columns, dtype=dtype, device=partial.device)
    block = min(16, plans.power_of_two(columns))
    arguments = {
        "x_ptr": partial,
        "sums_ptr": sums,
        "programs": programs,
        "columns": columns,
        "BLOCK_ROWS": SUMS_PER_BLOCK,
        "BLOCK_COLUMNS": block,
    }
    run_kernel(column_sums, (plans.ceil_div(columns, block), 1, 1), arguments, num_warps=4)
    return sums
