"""What can be tested without a TPU: that XLA compiles the step to one static program, and the notebook."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import keras_barlow as kb

NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "notebooks" / "tpu.ipynb"


@pytest.mark.full
def test_the_whole_step_compiles_to_one_static_program():
    """The recipe of the paper at a small size: all transforms, both passes, loss, mixed precision and LARS."""
    recipe = kb.recipes.get("imagenet_resnet50")
    small = {"image_size": 16, "encoder": "resnet8", "projector": (16, 16), "batch_size": 16, "epochs": 2}
    recipe = recipe.changed(**small, encoder_options={"width": 4})
    model = recipe.build(num_images=64, seed=0)
    assert type(model.optimizer) is kb.optimizers.LARS and "bfloat16" in model.encoder.dtype_policy.name
    model.optimizer.build(model.trainable_variables)
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (16, 20, 20, 3), dtype="uint8"))
    step = tf.function(model.train_step, jit_compile=True)
    program = step.experimental_get_compiler_ir(images)(stage="hlo")
    operations = set(re.findall(r"= \S+ ([a-z-]+)\(", program))
    assert {"convolution", "dot", "gather", "conditional"} <= operations
    # No calls to the host, other devices or hardware-specific kernels, and no bounded dynamic dimensions.
    assert not operations & {"custom-call", "infeed", "outfeed", "send", "recv", "host-callback", "rng"}
    assert "<=" not in program
    before = [weight.numpy() for weight in model.trainable_weights]
    # The learning rate is 0 in the first step.
    step(images)
    logs = step(images)
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert any(np.any(old != new.numpy()) for old, new in zip(before, model.trainable_weights, strict=True))
    assert int(model.optimizer.iterations) == 2


@pytest.mark.full
def test_the_notebook_runs_without_a_tpu(tmp_path):
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)
    small = f'EPOCHS, BATCH_SIZE, COPIES, PRECISION, FOLDER = 1, 64, 1, "float32", {str(tmp_path / "run")!r}'
    sources = []
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        if "install" not in tags:
            sources += ["".join(cell["source"]), *([small] if "parameters" in tags else [])]
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join(sources))
    environment = {**os.environ, "PYTHONPATH": str(NOTEBOOK.parents[2])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "No TPU, so on the CPU or GPU." in done.stdout and "1 replicas" in done.stdout
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())) >= {"knn_top1", "linear_top1"}
    assert (tmp_path / "run" / "encoder" / "saved_model.pb").exists()
