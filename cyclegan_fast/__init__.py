"""CycleGAN training (Zhu et al. 2017, arXiv 1703.10593)."""

from cyclegan_fast.version import __version__

__all__ = ["__version__"]


def _require_our_kernels() -> None:
    """Raise ImportError where `kernels` is not ours but another package of that import name, such as one on PyPI."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("kernels")
    if spec is None or spec.origin is None:
        raise ImportError("the folder kernels/ of cyclegan-fast is not importable; install it with `pip install -e .`")
    if not (Path(spec.origin).parent / "residual_block.py").exists():
        raise ImportError(
            f"`kernels` resolves to {spec.origin}, another package of that name; "
            "`pip uninstall kernels`, or run from the root of cyclegan-fast"
        )


_require_our_kernels()
