"""Makes a web page of a generator, by `export/browser/`."""

from pathlib import Path

from cyclegan_fast.system.errors import UserError
from export.formats.export_format import ExportFormat
from export.formats.material import ExportMaterial


class WebFormat(ExportFormat):
    """Describes a page that translates one direction; `python export/web.py` puts both into one page."""

    name = "web"
    endings = (".html",)
    modules = ("onnx", "onnxscript", "onnxruntime")
    install = "pip install 'cyclegan-fast[export]'"
    runs_with = "a browser"
    taken = "one image of any size"
    precision = "int8"  # of its weights; it computes in float32

    def why_not_run(self) -> str | None:
        """Return that a browser does, and where that is tested."""
        return "a browser runs it: the page compares itself with PyTorch, and shows the result, whenever it is opened"

    def make(self, material: ExportMaterial, stem: Path) -> None:
        """Write the page, whose weights must keep the parity of int8 weights."""
        from export.browser.page import write_web_page

        (page,) = self.paths(stem)
        (row,) = write_web_page([material.source], page).rows
        if row.failure is not None:
            raise UserError(f"the page's weights in int8 are not near enough: {row.failure}")
