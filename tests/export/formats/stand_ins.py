"""Formats that go wrong in every way that a converter can, and one that is PyTorch itself; processes import them."""

import errno
import os
import signal
from pathlib import Path

import torch

from export.formats.export_format import ExportFormat, ImageFunction
from export.formats.material import ExportMaterial
from export.formats.torchscript import in_numpy


class Whole(ExportFormat):
    """Keeps the generator as it is."""

    name = "whole"
    endings = (".whole",)
    modules = ()
    install = "-"
    runs_with = "PyTorch"
    taken = "one shape"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        torch.save(material.source.network, self.paths(stem)[0])

    def open(self, stem: Path, threads: int) -> ImageFunction:
        return in_numpy(torch.load(self.paths(stem)[0], weights_only=False))


class Crashes(Whole):
    name = "crashes"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class Raises(Whole):
    name = "raises"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        print("the converter's own words")
        raise KeyError("no such operator")


class FillsTheDisk(Whole):
    name = "fills-the-disk"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        (path,) = self.paths(stem)
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class LacksItsPackage(Whole):
    name = "lacks-its-package"
    modules = ("no_such_package_at_all",)
    install = "pip install no-such-package"


class Differs(Whole):
    """Translates to something else."""

    name = "differs"
    endings = (".differs",)

    def open(self, stem: Path, threads: int) -> ImageFunction:
        whole = super().open(stem, threads)
        return lambda images: whole(images) + 0.1


class RunsElsewhere(Whole):
    name = "runs-elsewhere"
    endings = (".elsewhere", ".elsewhere.package")

    def why_not_run(self) -> str:
        return "it is for another machine"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        file, folder = self.paths(stem)
        file.write_bytes(b"12345")
        folder.mkdir()
        (folder / "inside").write_bytes(b"67890")
