"""Every notebook runs from its first cell to its last, at smoke size, in a kernel of its own."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs(path, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("GEBM_SMOKE", "1")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert sum(output.output_type == "display_data" for cell in code for output in cell.outputs) >= 1


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= {
        "divergences",
        "gebm_2d",
        "sampling",
        "refining_a_gan",
        "reading_a_sweep",
    }
