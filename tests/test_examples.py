"""Test the notebooks of examples/: their cells run from top to bottom, and nothing of a machine is kept in them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells_of(notebook: Path, kind: str) -> list[str]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_keeps_no_outputs_and_its_links_lead_somewhere(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in content["cells"]}) == len(content["cells"])
    for cell in content["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    links = [link for text in cells_of(notebook, "markdown") for link in re.findall(r"\]\(([^)#]+)", text)]
    assert links
    assert [link for link in links if not (notebook.parent / link).exists()] == []


@pytest.mark.slow
def test_the_quick_start_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for cell in cells_of(ROOT / "examples" / "quick_start.ipynb", "code"):
        exec(compile(cell, "a cell of quick_start.ipynb", "exec"), names)
    said = capsys.readouterr().out
    assert "[10, 20, 30, 40, 50, 60]" in said, "the run went on where it had ended"
    assert int(re.findall(r"they differ by (\d+) of 255 levels", said)[0]) <= 1
    with Image.open(names["samples"]) as samples:
        assert samples.size > (100, 100)
    assert names["picture"].size == names["photo"].size
    assert len(np.unique(np.asarray(names["picture"]))) > 8
    assert re.search(r"SSIM -?0\.\d{3}, of the best colour lookup 0\.\d{3}", said)
