"""The quick-start notebook, in a real kernel, on few images and few epochs."""

import pathlib
import subprocess
import sys

import nbformat
from PIL import Image

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "notebooks" / "quickstart.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read("in.ipynb", as_version=4)
nbclient.NotebookClient(notebook, timeout=300).execute()
nbformat.write(notebook, "out.ipynb")
"""


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[2]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] for cell in code)
    cells = []
    for cell in code:
        if "install" not in cell.metadata.get("tags", []):
            cells.append(cell)
        if "parameters" in cell.metadata.get("tags", []):
            cells.append(nbformat.v4.new_code_cell("EPOCHS, IMAGE_SIZE = 2, 32"))
        if "model.fit" in cell.source:
            # Run again, as after a disconnect: nothing is left to do, and the history is that of the whole run.
            cells.append(nbformat.v4.new_code_cell(cell.source + "\nassert history.epoch == list(range(EPOCHS))"))
    notebook.cells = cells
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = subprocess.run([sys.executable, "-c", EXECUTE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = [output for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    for text in ("400 images", "Epoch 2/2", "(8, 64)", "trained with Barlow Twins", "nearly the same"):
        assert text in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    for name in ("views", "loss", "neighbors", "map"):
        with Image.open(tmp_path / "quickstart" / f"{name}.png") as picture:
            assert min(picture.size) > 200
    assert (tmp_path / "quickstart" / "encoder" / "saved_model.pb").exists()
