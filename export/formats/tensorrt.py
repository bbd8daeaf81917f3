"""Makes engines of TensorRT, for data centre GPUs; they are built on a GPU of the kind that runs them."""

from export.formats.tensorrt_rtx import TensorRtRtxFormat


class TensorRtFormat(TensorRtRtxFormat):
    """Describes an engine of TensorRT with its card, for one image of one shape."""

    name = "tensorrt"
    endings = (".tensorrt.engine", ".tensorrt.json")
    modules = ("onnx", "tensorrt")
    install = "pip install 'cyclegan-fast[export,tensorrt]' (fetched from NVIDIA's own index)"
    runs_with = "a GPU of the kind that built it, tensorrt of the same version, PyCUDA"
    runtime = "tensorrt"

    def why_not_made(self) -> str | None:
        """Return that there is no GPU, or what is missing beside one."""
        if self.why_not_run():
            return "an engine of TensorRT is built on an NVIDIA GPU, and there is none here: tensorrt-rtx needs none"
        return super().why_not_made()
