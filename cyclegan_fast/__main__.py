"""Lists the commands: `python -m cyclegan_fast`."""

import sys
from collections.abc import Sequence

from cyclegan_fast.system.errors import print_whole_lines
from cyclegan_fast.version import __version__

COMMANDS = {
    "python -m cyclegan_fast.train": "train CycleGAN, or a method that its paper compares it with; continue a run",
    "python -m cyclegan_fast.translate": "translate images with a trained generator",
    "python -m cyclegan_fast.evaluate": "measure how good the translations of a run are",
    "python -m cyclegan_fast.download": "fetch the authors' data sets and trained generators",
    "python -m cyclegan_fast.sample_photos": "write the embedded data set as folders of images",
    "python -m cyclegan_fast.street_scenes": "draw a data set of streets and their label maps",
    "python -m cyclegan_fast.earth": "write photographs and maps of the Earth as a data set",
    "python -m cyclegan_fast.perceptual_study": "ask people which of two images is real, and analyse their answers",
    "python -m cyclegan_fast.experiments": "run the comparisons of the paper's tables",
    "python -m cyclegan_fast.baselines.gatys": "transfer a style by optimising pixels (Gatys et al. 2016)",
    "python export/to_onnx.py": "export trained generators as ONNX files",
    "python export/trt.py": "export trained generators as ONNX files and TensorRT engines",
    "python export/run.py": "translate images with an exported file, without PyTorch",
    "python export/verify.py": "compare an exported file with the generator that it was made from",
}


def listing() -> str:
    """Return the list of commands, one a line, and how to learn more."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {purpose}" for command, purpose in COMMANDS.items()]
    return "\n".join(
        [
            f"cyclegan-fast {__version__}: CycleGAN training, translation and export",
            "",
            *lines,
            "",
            "Each command explains its options with --help, and says its version with --version.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the list of commands or the version, or what is meant instead; returns the exit status."""
    print_whole_lines()
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in ([], ["-h"], ["--help"]):
        print(listing())
        return 0
    if given == ["--version"]:
        print(f"cyclegan-fast {__version__}")
        return 0
    command = f"python -m cyclegan_fast.{given[0]}"
    advice = f"did you mean {command}?" if command in COMMANDS else "python -m cyclegan_fast lists the commands"
    print(f"error: no command {given[0]!r} here; {advice}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
