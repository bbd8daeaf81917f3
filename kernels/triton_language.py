"""Imports Triton, or stand-ins for it where it is not installed; `kernels.launching` launches the kernels.

Triton has Linux wheels only, and the reference operators must work without it: where it is missing, stand-ins let the
kernels' files be imported, and nothing can be launched.
"""

import os
from typing import TYPE_CHECKING, Any

from . import interpreter

if TYPE_CHECKING:
    import triton
    import triton.language as tl

    INSTALLED = True
else:
    try:
        import triton
        import triton.language as tl

        INSTALLED = True
    except ImportError:

        class _StandIn:
            """Takes the place of `triton`, `triton.language` and of whatever a decorator of theirs returns."""

            def __getattr__(self, name: str) -> Any:
                return self

            def __call__(self, *args: Any, **options: Any) -> Any:
                return self

        triton = tl = _StandIn()
        INSTALLED = False

# Triton reads the variable when a kernel is decorated, hence at import: setting it later has no effect.
INTERPRETED = INSTALLED and os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    interpreter.mend()


def reason_against_compiling() -> str | None:
    """Say why this process compiles no kernel, as the end of a sentence about a command; None where it does."""
    if not INSTALLED:
        return "needs the triton package, which has Linux wheels only"
    if INTERPRETED:
        return "compiles kernels, which Triton's interpreter does not: unset TRITON_INTERPRET"
    return None


__all__ = ["INSTALLED", "INTERPRETED", "reason_against_compiling", "tl", "triton"]
