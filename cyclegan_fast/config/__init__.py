"""Holds the configuration of a run: its options, named presets, how it becomes a file, and training's command line.

Users import these names from here. options.py puts the sections together that data_options.py, model_options.py and
run_options.py define; command.py parses the command line, values.py reads and writes files.
"""

from cyclegan_fast.config.options import (
    Config,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    NetworkConfig,
    OptimizerConfig,
    RunConfig,
)
from cyclegan_fast.config.presets import PRESETS, TASKS, as_published, of_method
from cyclegan_fast.config.values import differences, from_dict, to_dict

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
    "as_published",
    "differences",
    "from_dict",
    "of_method",
    "to_dict",
]
