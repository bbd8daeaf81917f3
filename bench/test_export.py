"""How long an export takes, against PyTorch's exporter alone."""

import pytest

from bench.conftest import Compare
from bench.contest import Case
from bench.export_time import cases

pytest.importorskip("onnxscript")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.title) for case in cases(256)])
def test_export(case: Case, compare: Compare, full: bool) -> None:
    compare(case, 5 if full else 3)
