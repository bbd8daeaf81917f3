"""Reads a file of trained weights, whatever it is: a checkpoint of a run, or bare weights of one network or several."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from cyclegan_fast.checkpoint.files import FOLDER, CheckpointCheck, checked_run, find_newest, is_run_checkpoint, load
from cyclegan_fast.checkpoint.names import find_weights
from cyclegan_fast.checkpoint.original import StateDict
from cyclegan_fast.checkpoint.published import is_published, read_published
from cyclegan_fast.checkpoint.wrapped_weights import networks_in
from cyclegan_fast.config.options import MethodName
from cyclegan_fast.system.errors import UserError


@dataclass(frozen=True)
class WeightsFile:
    """Holds what a file of weights contains: a checkpoint of a run, or bare weights.

    given: what the user named, see `find_weights`; messages name it.
    file: the file that was read.
    """

    given: Path
    file: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, given: Path, warnings: list[str], check: CheckpointCheck | None = None) -> Self:
        """Read the file that a user named: a run's folder gives its newest whole checkpoint.

        Args:
            given: see `find_weights`.
            warnings: a line is appended for each damaged checkpoint that is passed over.
            check: says what else must hold for a run's checkpoint to count as whole.

        Raises UserError where nothing can be read.
        """
        place = find_weights(given)
        if not place.is_dir():
            content = load(place)
            return cls(given, place, {**checked_run(place, content, check)} if is_run_checkpoint(content) else content)
        if is_published(place):
            return cls(given, *read_published(place))
        found = find_newest(place, warnings, check)
        if found is None:
            raise UserError(f"no checkpoint in {place / FOLDER}: give a run's folder, a .pt or a .pth file")
        file, checkpoint = found
        return cls(given, file, {**checkpoint})

    @property
    def is_run(self) -> bool:
        """Say whether this is a run's checkpoint, with its networks by name in one state dict, and not bare weights."""
        model = self.content.get("model")
        if not isinstance(model, dict) or not isinstance(self.content.get("config"), dict):
            return False
        return all(isinstance(value, Tensor) for value in model.values()) and "" not in networks_in(model)

    @property
    def method_name(self) -> MethodName:
        """Return the name of a run's method: CycleGAN where its configuration is older than the other methods."""
        loss = self.content["config"].get("loss")
        name: MethodName | None = loss.get("method") if isinstance(loss, dict) else None
        return name or "cyclegan"

    def generator_state(self, name: str) -> StateDict:
        """Return the weights of a run's generator: its moving average where there is one."""
        networks = self.networks_of_run()
        return networks.get(f"{name}_ema") or networks.get(name, {})

    def networks_of_run(self) -> dict[str, StateDict]:
        """Return the state dicts of all networks of a run by their names, moving averages ("G_A_ema") too."""
        networks: dict[str, StateDict] = {}
        for key, value in self.content["model"].items():
            name, _, inside = key.partition(".")
            networks.setdefault(name, {})[inside] = value
        return networks
