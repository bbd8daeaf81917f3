"""Rows of the table: what is shown of them, what is kept from one command to the next, and what is read back."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from export.formats.table import (
    HEADINGS,
    FormatRow,
    how_measured,
    in_columns,
    in_markdown,
    joined_rows,
    read_table,
    write_table,
)

RAN = FormatRow(
    format="onnx",
    generator="x-a2b",
    checkpoint_sha256="0" * 64,
    taken="any batch and size",
    runs_with="ONNX Runtime",
    files=("x-a2b.onnx",),
    size_mb=7.94,
    psnr_db=138.9,
    largest=0.00023,
    ms=158.4,
    pytorch_ms=264.5,
    ratio=0.6,
    side=64,
    threads=1,
    rounds=3,
)
NOT_RUN = replace(RAN, format="coreml", files=("x-a2b.mlpackage",), psnr_db=None, largest=None, ms=None, ratio=None)
NOT_RUN = replace(NOT_RUN, pytorch_ms=None, not_run="Core ML is | a part of macOS")
NOT_MADE = replace(NOT_RUN, format="ncnn", files=(), size_mb=None, not_run=None, failure="pnnx is not installed")


def test_the_printed_table_stands_in_columns_and_says_why() -> None:
    heading, *lines = in_columns([RAN, NOT_RUN, NOT_MADE]).splitlines()
    places = [heading.index(text) for text in HEADINGS]
    for row, line in zip((RAN, NOT_RUN, NOT_MADE), lines, strict=False):
        ends = [*places[1:], None]
        assert tuple(line[begin:end].strip() for begin, end in zip(places, ends, strict=True)) == row.cells()
    assert RAN.cells()[2:] == (
        *("7.9 MB", "138.9 dB", "0.00023 levels of 255", "158.4 ms", "0.60", "any batch and size", "ran here"),
    )
    assert lines[3:6] == ["", "coreml: Core ML is | a part of macOS", "ncnn: pnnx is not installed"]
    assert lines[6].startswith("time: median of 3 rounds of one image of 64x64 in 1 thread, in turn with PyTorch")


def test_what_computed_the_parity_of_files_that_were_not_run_is_told() -> None:
    row = replace(NOT_RUN, format="web", not_run="a browser runs it", psnr_db=56.34, largest=9.0, compared_by="ONNX")
    assert row.cells()[3:5] == ("56.3 dB", "9 levels of 255")
    assert row.outcome == "made, not run"
    said = "a browser runs it; its parity is that of ONNX"
    assert f"web: {said}" in in_columns([RAN, row]).splitlines()
    assert f"| {said} |" in in_markdown([row])


def test_times_of_several_sizes_and_threads_are_told_apart() -> None:
    other = replace(RAN, side=256, threads=2, rounds=1, pytorch_ms=1000.0)
    said = how_measured([RAN, other, NOT_MADE])
    assert "3 rounds or 1 round of one image of 64x64 or 256x256 in 1 thread or 2 threads" in said
    assert "(264.5 to 1000.0 ms)" in said
    assert how_measured([NOT_MADE]) == "nothing was timed"


def test_markdown_has_a_cell_for_each_column() -> None:
    lines = [line for line in in_markdown([RAN, NOT_RUN, NOT_MADE]).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(HEADINGS) + 4}
    assert "Core ML is / a part of macOS" in lines[3]


@pytest.mark.parametrize("figure", [138.9, math.inf, math.nan, None])
def test_rows_are_read_as_they_were_written(figure: float | None, tmp_path: Path) -> None:
    assert read_table(tmp_path) == []
    row = replace(RAN, psnr_db=figure, pixels={"input_pixels": {"channels": 1}}, versions={"onnx": "1.23.2"})
    write_table(tmp_path, [row, NOT_RUN, NOT_MADE])
    assert repr(read_table(tmp_path)) == repr([row, NOT_RUN, NOT_MADE])


def test_rows_stay_while_their_files_and_their_checkpoint_do(tmp_path: Path) -> None:
    (tmp_path / "x-a2b.mlpackage").mkdir()
    new = replace(RAN, size_mb=1.0)
    assert joined_rows([RAN, NOT_RUN, NOT_MADE], [new], tmp_path) == [new, NOT_RUN]
    assert joined_rows([NOT_RUN], [replace(new, checkpoint_sha256="1" * 64)], tmp_path)[1:] == []
    other = replace(new, generator="y-a2b", checkpoint_sha256="1" * 64)
    assert joined_rows([NOT_RUN], [other], tmp_path) == [other, NOT_RUN]
    (tmp_path / "x-a2b.mlpackage").rmdir()
    assert joined_rows([NOT_RUN], [new], tmp_path) == [new]
