"""Measures how long an export takes, against PyTorch's exporter alone."""

import pytest

from bench.cases.export_time import export_cases
from bench.conftest import Compare
from bench.measure.contest import Case

pytest.importorskip("onnxscript")


@pytest.mark.parametrize("case", [pytest.param(case, id=case.title) for case in export_cases(256)])
def test_export(case: Case, compare: Compare, full: bool) -> None:
    compare(case, 5 if full else 3)
