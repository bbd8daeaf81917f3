"""Names the nodes of a graph that stand for kernels of this project; the parser of TensorRT finds them by these."""

DOMAIN = "cyclegan_fast"
STATISTICS_NODE = "NormStatistics"
APPLY_NODE = "NormApply"
APPLY_RESIDUAL_NODE = "NormApplyResidual"
