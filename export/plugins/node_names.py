"""Names the nodes of a graph that stand for kernels of this project; the parser of TensorRT finds them by these."""

DOMAIN = "cyclegan_fast"
STATISTICS = "NormStatistics"
APPLY = "NormApply"
APPLY_RESIDUAL = "NormApplyResidual"
