"""Turns the names that users give to trained weights into files: a run, `RUN@120`, a file, a name on a hub."""

import re
from pathlib import Path

from cyclegan_fast.checkpoint.files import BEST, FOLDER, exists, kept_epochs
from cyclegan_fast.checkpoint.hub import is_hub_name, local_copy
from cyclegan_fast.system.errors import UserError

LATEST = "latest"
_KEPT = re.compile(r"\d+|latest|best")


def find_weights(name: Path) -> Path:
    """Return the file or the folder that a name of trained weights stands for; what `name` is to be is not read.

    Args:
        name: a run's folder or a file, which are returned as they are, also where they have an "@" in their names; or a
            checkpoint that a run keeps: "RUN@120" after its epoch 120, "RUN@best", "RUN@latest"; or a name on a hub,
            whose files are fetched, see `local_copy`.

    Raises UserError for a checkpoint that the run does not keep, which lists those that it keeps.
    """
    text = str(name)
    if is_hub_name(name):
        return local_copy(text)
    run, at, which = text.rpartition("@")
    if not at or name.exists():
        return name
    kept = kept_checkpoints(Path(run))
    if not kept:
        if _KEPT.fullmatch(which):
            raise UserError(f"{name}: {run} is no run with a checkpoint")
        return name
    found = kept.get(str(int(which)) if which.isdecimal() else which)
    if found is None:
        raise UserError(
            f"{run} keeps no checkpoint @{which}, but {kept_in_words(Path(run))}; --keep-every-epochs N of the "
            "training keeps more"
        )
    return found


def kept_checkpoints(run: Path) -> dict[str, Path]:
    """Return what may stand behind "RUN@", with the file of each: "latest", "best" where there is one, and epochs.

    The newest is the folder itself, in which a whole checkpoint is looked for; none is named where there is no run.
    """
    if not exists(run):
        return {}
    best = run / FOLDER / BEST
    named = {LATEST: run} | ({"best": best} if best.exists() else {})
    return named | {str(epoch): path for epoch, path in kept_epochs(run).items()}


def kept_under(file: Path) -> str:
    """Return what stands behind "RUN@" for a file that a run keeps for good, "120" or "best"; "" for all others."""
    if file.parent.name != FOLDER:
        return ""
    epochs = {path.name: str(epoch) for epoch, path in kept_epochs(file.parents[1]).items()}
    return epochs.get(file.name, "best" if file.name == BEST else "")


def kept_in_words(run: Path, most: int = 20) -> str:
    """Return what may stand behind "RUN", such as "@latest, @best, @50, @100"; of many, the middle is left out."""
    words = [f"@{which}" for which in kept_checkpoints(run)]
    if len(words) > most:
        words = [*words[: most // 2], "...", *words[-most // 2 :]]
    return ", ".join(words)
