"""Lists the formats of export, and chooses those that a command line names."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from cyclegan_fast.system.errors import UserError
from export.formats.coreml import CoreMlFormat
from export.formats.executorch import ExecuTorchFormat
from export.formats.export_format import ExportFormat
from export.formats.litert import LiteRtFormat
from export.formats.ncnn import NcnnFormat
from export.formats.onnx import OnnxFormat
from export.formats.openvino import OpenVinoFormat
from export.formats.pt2 import Pt2Format
from export.formats.tensorrt import TensorRtFormat
from export.formats.tensorrt_rtx import TensorRtRtxFormat
from export.formats.torchscript import TorchScriptFormat
from export.formats.triton import TritonFormat
from export.formats.web import WebFormat

EXPORT_FORMATS: dict[str, ExportFormat] = {
    of_name.name: of_name
    for of_name in (
        OnnxFormat(),
        OpenVinoFormat(),
        TensorRtRtxFormat(),
        TensorRtFormat(),
        TritonFormat(),
        WebFormat(),
        TorchScriptFormat(),
        Pt2Format(),
        ExecuTorchFormat(),
        CoreMlFormat(),
        NcnnFormat(),
        LiteRtFormat(),
    )
}
"""The formats by their names, in the order in which they are made."""

ALL, INSTALLED = "all", "installed"


def chosen_formats(names: str) -> Sequence[ExportFormat]:
    """Return the formats that a list such as "onnx,ncnn" names, in the order of `EXPORT_FORMATS`.

    "all" names all of them, and "installed" those that can be made here. Raises UserError for a name that is none, with
    the one that was likely meant, for one given twice, and for "all" or "installed" beside others.
    """
    given = [name.strip().lower() for name in names.split(",")]
    if given == [ALL]:
        return tuple(EXPORT_FORMATS.values())
    if given == [INSTALLED]:
        return tuple(found for found in EXPORT_FORMATS.values() if found.why_not_made() is None)
    for name in given:
        if name in (ALL, INSTALLED):
            raise UserError(f"--format {name} stands by itself: leave the other names out, or {name}")
        if name not in EXPORT_FORMATS:
            close = get_close_matches(name.replace("_", "-"), [*EXPORT_FORMATS, ALL, INSTALLED], n=1)
            advice = (
                f"did you mean {close[0]}?"
                if close
                else f"there are {', '.join(EXPORT_FORMATS)}, {ALL} and {INSTALLED}"
            )
            raise UserError(f"--format: no format is called {name!r}; {advice}")
    if twice := [name for name, count in Counter(given).items() if count > 1]:
        raise UserError(f"--format names {', '.join(twice)} twice: give each name once")
    return tuple(found for name, found in EXPORT_FORMATS.items() if name in given)
