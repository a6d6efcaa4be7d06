"""Compiles the whole training step for a TPU, on a machine without one.

    python3 -m venv tpu && tpu/bin/pip install jax libtpu
    python benchmarks/tpu_compile.py --python=tpu/bin/python --output=benchmarks/results/tpu_compile.json

TensorFlow exports the step (views, both passes, loss, LARS) as one XLA program. libtpu, the TPU driver library, can
compile for chips that are not attached. JAX calls it, in a separate environment, because TensorFlow and libtpu contain
their own copies of XLA. The result shows that every operation exists on a TPU, and how much memory the step needs.
Nothing is executed, so there is no timing.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import harness

CHIP = "v5e:2x2"
# Recipe, images per core, side of the stored images.
STEPS = (("cifar10_resnet18", 128, 32), ("imagenet_resnet50", 128, 256))

COMPILE = """
import json, sys, time

import jax, numpy as np
from jax._src.interpreters import mlir
from jax._src.lib import _jax, xla_client
from jax.experimental import topologies
from jaxlib.mlir import ir

device = topologies.get_topology_desc(platform="tpu", topology_name=sys.argv[2]).devices[0]
program = _jax.mlir.hlo_to_stablehlo(open(sys.argv[1], "rb").read())
options = xla_client.CompileOptions()
options.device_assignment = xla_client.DeviceAssignment.create(np.array([[0]]))
context = mlir.make_ir_context()
context.allow_unregistered_dialects = True
with context:
    module, copies = ir.Module.parse(program), []

    def collect(operation):
        if operation.name == "mhlo.copy":
            copies.append(operation)
        return ir.WalkResult.ADVANCE

    # TensorFlow copies the values of variables with an operation that StableHLO lacks and that computes nothing.
    module.operation.walk(collect)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()
    started = time.time()
    compiled = device.client.compile(module, xla_client.DeviceList((device,)), options)
memory = compiled.get_compiled_memory_stats()
print(json.dumps({
    "jax": jax.__version__,
    "seconds_to_compile": round(time.time() - started),
    "weights_and_images_mib": round(memory.argument_size_in_bytes / 2**20),
    "temporary_mib": round(memory.temp_size_in_bytes / 2**20),
    "program_mib": round(memory.generated_code_size_in_bytes / 2**20),
    "teraflop": round(compiled.cost_analysis()["flops"] / 1e12, 3),
}))
"""


def step_program(name, rows, size):
    """Returns the step of a recipe on one core as a serialized XLA program."""
    import numpy as np
    import tensorflow as tf

    import keras_barlow as kb

    recipe = dataclasses.replace(kb.recipes.get(name), batch_size=rows, precision="mixed_bfloat16")
    recipe = dataclasses.replace(recipe, crops_from_files=False)
    model = recipe.build(100 * rows, seed=0)
    model.optimizer.build(model.trainable_variables)
    images = tf.constant(np.zeros((rows, size, size, 3), "uint8"))
    step = tf.function(model.train_step, jit_compile=True)
    return step.experimental_get_compiler_ir(images)(stage="hlo_serialized")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="Python of an environment with jax and libtpu")
    parser.add_argument("--output", help="JSON file to write")
    options = parser.parse_args()
    quiet = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
    results = {"chip": CHIP, "steps": {}}
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder) / "step.hlo"
        for name, rows, size in STEPS:
            program.write_bytes(step_program(name, rows, size))
            command = [options.python, "-c", COMPILE, str(program), CHIP]
            done = subprocess.run(command, env={**os.environ, **quiet}, stdout=subprocess.PIPE, text=True, check=True)
            results["steps"][f"{name}, {rows} images"] = json.loads(done.stdout.splitlines()[-1])
            print(name, rows, done.stdout.splitlines()[-1], flush=True)
    harness.write(results, options.output)


if __name__ == "__main__":
    main()
