"""The quick-start notebook in a real kernel, and the minimal script, on few images and few epochs."""

import pathlib
import re
import subprocess
import sys

import nbformat
import pytest
from PIL import Image

import keras_barlow as kb

MINIMAL = pathlib.Path(__file__).parents[1] / "examples" / "minimal.py"
NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "notebooks" / "quickstart.ipynb"
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read("in.ipynb", as_version=4)
nbclient.NotebookClient(notebook, timeout=300).execute()
nbformat.write(notebook, "out.ipynb")
"""


@pytest.mark.full
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[2]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] for cell in code)
    cells = []
    for cell in code:
        # Fewer pieces of each photograph.
        cell.source = cell.source.replace("200)", "48)")
        if "install" not in cell.metadata.get("tags", []):
            cells.append(cell)
        if "parameters" in cell.metadata.get("tags", []):
            cells.append(nbformat.v4.new_code_cell("EPOCHS, IMAGE_SIZE, BATCH_SIZE = 2, 32, 32"))
        if "model.fit" in cell.source:
            # Run again, as after a disconnect: nothing is left to train, and the history is that of the whole run.
            cells.append(nbformat.v4.new_code_cell(cell.source + "\nassert history.epoch == list(range(EPOCHS))"))
    notebook.cells = cells
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = subprocess.run([sys.executable, "-c", EXECUTE], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outputs = [output for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells for output in cell.outputs]
    printed = "".join(output.get("text", "") for output in outputs)
    for text in ("96 images", "Epoch 2/2", "(8, 64)", "trained with Barlow Twins", "nearly the same"):
        assert text in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    for name in ("views", "loss", "neighbors", "map"):
        with Image.open(tmp_path / "quickstart" / f"{name}.png") as picture:
            assert min(picture.size) > 200
    assert (tmp_path / "quickstart" / "encoder" / "saved_model.pb").exists()


def test_the_minimal_script_is_short_and_exports_an_encoder(tmp_path, monkeypatch, capsys):
    text = MINIMAL.read_text()
    assert len(text.splitlines()) <= 60 and "FLAGS" not in text
    digits = [(images[:256], labels[:256]) for images, labels in kb.data.digits(copies=1)]
    monkeypatch.setattr(kb.data, "digits", lambda: digits)
    monkeypatch.chdir(tmp_path)
    # One epoch of four steps.
    exec(compile(text.replace("EPOCHS, BATCH_SIZE = 6, 64", "EPOCHS, BATCH_SIZE = 1, 64"), MINIMAL, "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"k-NN accuracy: 0\.\d\d untrained, 0\.\d\d trained\nThe encoder is in runs/minimal\.", printed)
    assert printed.count("4/4 - ") == 1
    assert kb.load_encoder("runs/minimal").output_shape == (None, 64)
