"""The notebook runs from its first cell to its last, on a tiny backbone."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "first_run.ipynb"


def test_the_notebook_runs(tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("HFSSL_BACKBONE", str(tiny_backbone))
    monkeypatch.setenv("HFSSL_FOLDER", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONWARNINGS")  # deprecated calls inside the kernel's own libraries are not ours
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    answers = notebook.cells[-1].outputs[-1]["data"]["text/plain"]
    assert answers.count("'label': ") == 2
    (fit,) = [cell for cell in notebook.cells if cell.cell_type == "code" and "hfssl.fit(" in cell.source]
    assert "unlabeled data" in fit.outputs[-1]["text"]
    assert {"README.md", "model", "report.html", "results.json"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }


def test_the_notebook_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
