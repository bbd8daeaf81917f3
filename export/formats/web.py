"""Makes a web page of a generator, by `export/browser/`."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_fast.system.errors import UserError
from export.formats.export_format import ExportFormat
from export.formats.material import ExportMaterial

if TYPE_CHECKING:
    from export.parity import Parity


class WebFormat(ExportFormat):
    """Describes a page that translates one direction; `python export/web.py` puts both into one page."""

    name = "web"
    endings = (".html",)
    modules = ("onnx", "onnxruntime")
    install = "pip install 'cyclegan-fast[export]'"
    runs_with = "a browser"
    taken = "one image of any size"
    precision = "int8"  # of its weights; it computes in float32
    compared_by = "ONNX Runtime on this machine's CPU, by the graph and the 8-bit weights of the page"

    def why_not_made(self) -> str | None:
        """Return what is missing: packages, or npm where ONNX Runtime Web is not in the user's cache."""
        from export.browser.runtime_package import BACKEND_FILES, can_be_had

        if reason := super().why_not_made():
            return reason
        if can_be_had([name for files in BACKEND_FILES.values() for name in files]):
            return None
        return "npm is not installed, which fetches ONNX Runtime Web: install Node.js, or give export/web.py --runtime"

    def why_not_run(self) -> str | None:
        """Return that a browser does, and where that is tested."""
        return "a browser runs it: the page compares itself with PyTorch, and shows the result, whenever it is opened"

    def make(self, material: ExportMaterial, stem: Path) -> "Parity":
        """Write the page, whose weights must keep the parity of int8 weights; return that."""
        from export.browser.page import write_web_page

        (page,) = self.paths(stem)
        (row,) = write_web_page([material.source], page).rows
        if row.failure is not None:
            raise UserError(f"the page's weights in int8 are not near enough: {row.failure}")
        return row.parity["worst"]
