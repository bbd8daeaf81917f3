"""Lists all commands: what each is called, the module that runs it, and what describes its flags."""

import importlib
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


@dataclass(frozen=True)
class CommandEntry:
    """Describes one command; modules are named, not imported, since most of them bring PyTorch along."""

    module: str
    """the module whose `main` runs it"""
    options: str
    """the class of its flags, as module:class"""
    purpose: str

    @property
    def usual_program(self) -> str:
        """Return how the command is called without the installed script, from a checkout in the case of export/."""
        if self.module.startswith("export."):
            return f"python {self.module.replace('.', '/')}.py"
        return f"python -m {self.module.removesuffix('.__main__')}"

    def load_options(self) -> Any:
        """Import and return the class of its flags; raises ImportError where what it needs is not installed."""
        module, _, name = self.options.partition(":")
        return getattr(importlib.import_module(module), name)


COMMANDS = {
    "train": CommandEntry(
        "cyclegan_fast.train",
        "cyclegan_fast.config.command:TrainingCommand",
        "train CycleGAN, or a method that its paper compares it with; continue a run",
    ),
    "translate": CommandEntry(
        "cyclegan_fast.translate",
        "cyclegan_fast.translation.command:TranslateCommand",
        "translate images and videos with a trained generator",
    ),
    "evaluate": CommandEntry(
        "cyclegan_fast.evaluate",
        "cyclegan_fast.evaluation.command:EvaluateCommand",
        "measure how good the translations of a run are",
    ),
    "export": CommandEntry(
        "export.to_formats",
        "export.to_formats:ToFormatsCommand",
        "export trained generators in any format of deployment, compared and timed in one table",
    ),
    "build-engine": CommandEntry(
        "export.trt",
        "export.trt:TrtCommand",
        "build TensorRT engines, in five precisions and for ranges of sizes, with their ONNX files",
    ),
    "to-onnx": CommandEntry(
        "export.to_onnx",
        "export.to_onnx:ToOnnxCommand",
        "export trained generators as ONNX files alone",
    ),
    "web": CommandEntry(
        "export.web",
        "export.web:WebCommand",
        "export trained generators as a web page that translates in the browser",
    ),
    "run-exported": CommandEntry(
        "export.run",
        "export.run:RunCommand",
        "translate images and videos with an exported file, without PyTorch",
    ),
    "verify-exported": CommandEntry(
        "export.verify",
        "export.verify:VerifyCommand",
        "compare an exported file with the generator that it was made from",
    ),
    "serve": CommandEntry(
        "export.serve",
        "export.serve:ServeCommand",
        "serve exported files over HTTP, without PyTorch",
    ),
    "triton-repository": CommandEntry(
        "export.serving.triton_repository",
        "export.serving.triton_repository:TritonRepositoryCommand",
        "write what NVIDIA's Triton Inference Server loads",
    ),
    "download": CommandEntry(
        "cyclegan_fast.download",
        "cyclegan_fast.datasets.authors:DownloadCommand",
        "fetch the authors' data sets and trained generators",
    ),
    "sample-photos": CommandEntry(
        "cyclegan_fast.sample_photos",
        "cyclegan_fast.sample_photos:SamplePhotosCommand",
        "write the embedded data set as folders of images",
    ),
    "street-scenes": CommandEntry(
        "cyclegan_fast.street_scenes",
        "cyclegan_fast.street_scenes:StreetScenesCommand",
        "draw a data set of streets and their label maps",
    ),
    "stained-tissue": CommandEntry(
        "cyclegan_fast.stained_tissue",
        "cyclegan_fast.stained_tissue:StainedTissueCommand",
        "write stained tissue and the amounts of its stains as a data set",
    ),
    "earth": CommandEntry(
        "cyclegan_fast.earth",
        "cyclegan_fast.earth:EarthCommand",
        "write photographs and maps of the Earth as a data set",
    ),
    "perceptual-study": CommandEntry(
        "cyclegan_fast.perceptual_study",
        "cyclegan_fast.perceptual_study:StudyCommand",
        "ask people which of two images is real, and analyse their answers",
    ),
    "experiments": CommandEntry(
        "cyclegan_fast.experiments.__main__",
        "cyclegan_fast.experiments.plan:Tables",
        "run the comparisons of the paper's tables",
    ),
    "gatys": CommandEntry(
        "cyclegan_fast.baselines.gatys",
        "cyclegan_fast.baselines.gatys:GatysCommand",
        "transfer a style by optimising pixels (Gatys et al. 2016)",
    ),
}
"""The commands by the name that `cyclegan-fast NAME` knows, in the order in which they are listed."""


def meant_by(name: str) -> str | None:
    """Return the name of the command that a misspelt one is likely to mean, or None."""
    close = get_close_matches(name.replace("_", "-").lower(), COMMANDS, n=1)
    return close[0] if close else None
