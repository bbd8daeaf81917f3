"""The configuration of a run: its options, named presets, how it becomes a file, and training's command line."""

from cyclegan_fast.config.options import (
    Config,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)
from cyclegan_fast.config.presets import PRESETS, TASKS
from cyclegan_fast.config.values import from_dict, to_dict

__all__ = [
    "PRESETS",
    "TASKS",
    "Config",
    "DataConfig",
    "EvaluationConfig",
    "LossConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "RunConfig",
    "from_dict",
    "to_dict",
]
