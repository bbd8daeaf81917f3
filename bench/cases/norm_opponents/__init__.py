"""Holds instance norms of other libraries, which compete with the fused norm where they are installed.

None of them is a dependency: `absence` says why one cannot take part. Each is written against the library's own sources
(versions in the modules); none was run on a GPU yet.
"""

from collections.abc import Callable

from bench.cases.norm_opponents.cudnn_graph import CudnnNorm
from bench.cases.norm_opponents.opponent import NormOpponent
from bench.cases.norm_opponents.quack_rows import QuackRowNorm
from bench.cases.norm_opponents.ready_made import (
    ApexNorm,
    ChannelsLastNorm,
    FlagGemsNorm,
    GroupNormOfChannels,
    TileNorm,
)

NORM_OPPONENTS: tuple[Callable[[], NormOpponent], ...] = (
    GroupNormOfChannels,
    ChannelsLastNorm,
    CudnnNorm,
    FlagGemsNorm,
    TileNorm,
    QuackRowNorm,
    ApexNorm,
)
"""Makes each opponent; what it compiled for a shape lives as long as it does."""
