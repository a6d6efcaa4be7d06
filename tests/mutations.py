"""Breaks central lines of the library one at a time: do the tests of a plain `pytest` notice each of them?

python tests/mutations.py  # 5 minutes on two cores

Each line is broken in a copy of the repository. Only the test files that should notice run there, up to the first
failure. A line that is no longer found is an error: write its mutation anew.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]


class Mutation(NamedTuple):
    """One broken line.

    Attributes:
        name: What is wrong afterwards.
        module: File below `keras_barlow`.
        before: Text that occurs once in the file.
        after: Text that takes its place.
        tests: Names of the test files that run.
    """

    name: str
    module: str
    before: str
    after: str
    tests: str


MUTATIONS = [
    Mutation(
        "gradient of the redundancy term halved",
        "losses/barlow_twins_loss.py",
        "slope = 2.0 * self.redundancy_weight * errors",
        "slope = 1.0 * self.redundancy_weight * errors",
        "test_losses",
    ),
    Mutation(
        "no sum over replicas",
        "distribution/replicas.py",
        "return x if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, x)",
        "return x",
        "test_losses",
    ),
    Mutation(
        "rows of the next replica",
        "distribution/replicas.py",
        "tf.reduce_sum(counts[: context.replica_id_in_sync_group])",
        "tf.reduce_sum(counts[: context.replica_id_in_sync_group + 1])",
        "test_views",
    ),
    Mutation(
        "views that ignore the step",
        "randomness.py",
        "2 * tf.cast(step, tf.int64) + view % 2",
        "0 * tf.cast(step, tf.int64) + view % 2",
        "test_views",
    ),
    Mutation(
        "two equal views",
        "randomness.py",
        "2 * tf.cast(step, tf.int64) + view % 2",
        "2 * tf.cast(step, tf.int64)",
        "test_views test_exact_step",
    ),
    Mutation(
        "batches not counted",
        "pretraining/model.py",
        "self.batch_count.assign_add(1)",
        "self.batch_count.assign_add(0)",
        "test_training_data",
    ),
    Mutation(
        "moving statistics moved twice in micro-batches",
        "pretraining/tensorflow_step.py",
        "    restore()\n",
        "    pass\n",
        "test_barlow_twins",
    ),
    Mutation(
        "gradients clipped before they are summed",
        "pretraining/tensorflow_step.py",
        "if clips(optimizer):",
        "if False:",
        "test_exact_step",
    ),
    Mutation(
        "penalties of one view only",
        "pretraining/penalties.py",
        "self._passes.append(of_pass(network))",
        "self._passes[:] = [of_pass(network)]",
        "test_exact_step",
    ),
    Mutation(
        "statistics of one replica in the gradient of batch normalization",
        "layers/normalization.py",
        "distribution.sum_over_replicas(tf.concat([d_gamma, d_beta], axis=0)) / total",
        "tf.concat([d_gamma, d_beta], axis=0) / total",
        "test_normalization test_replicas",
    ),
    Mutation(
        "momentum copies that follow at once",
        "pretraining/momentum.py",
        "ops.cast(keep, target.dtype) * target + ops.cast(1.0 - keep, target.dtype) * weight",
        "ops.cast(1.0 - keep, target.dtype) * target + ops.cast(keep, target.dtype) * weight",
        "test_asymmetry",
    ),
    Mutation(
        "a gradient through SwAV's codes",
        "losses/swav_loss.py",
        "[ops.stop_gradient(sinkhorn(view / self.epsilon, self.iterations)) for view",
        "[sinkhorn(view / self.epsilon, self.iterations) for view",
        "test_method_losses",
    ),
    Mutation(
        "images among their own negatives",
        "losses/simclr_loss.py",
        "ops.where(itself, -math.inf, similarity)",
        "similarity",
        "test_method_losses",
    ),
    Mutation(
        "the oldest keys kept in the queue",
        "methods/moco.py",
        "ops.concatenate([keys, self.queue.value])[: self.queue_size]",
        "ops.concatenate([keys, self.queue.value])[-self.queue_size :]",
        "test_methods",
    ),
    Mutation(
        "keys of one replica in the queue",
        "methods/moco.py",
        "distribution.gather_rows(keys)",
        "keys",
        "test_methods",
    ),
    Mutation(
        "prototypes that grow",
        "methods/swav.py",
        "self.prototypes.assign(losses.l2_normalized(self.prototypes.value, axis=0))",
        "pass",
        "test_methods",
    ),
    Mutation(
        "a gradient through SimSiam's targets",
        "methods/simsiam.py",
        "*map(ops.stop_gradient, z[:2])",
        "*z[:2]",
        "test_methods",
    ),
    Mutation(
        "a momentum that falls",
        "pretraining/momentum.py",
        "(ops.cos(math.pi * progress) + 1.0) / 2.0",
        "(1.0 - ops.cos(math.pi * progress)) / 2.0",
        "test_methods",
    ),
    Mutation(
        "biased covariances in VICReg",
        "losses/vicreg_loss.py",
        "ops.cast(ops.shape(z)[0], z.dtype) - 1.0",
        "ops.cast(ops.shape(z)[0], z.dtype)",
        "test_method_losses",
    ),
    Mutation(
        "mixtures with the next row of the micro-batch",
        "distribution/replicas.py",
        "x[1:], first_rows[following : following + 1]",
        "x[1:], x[:1]",
        "test_methods",
    ),
    Mutation(
        "trust ratio without the norm of the weights",
        "optimizers.py",
        "self.trust_coefficient * weight_norm /",
        "self.trust_coefficient /",
        "test_optimizers",
    ),
    Mutation(
        "the last of tied neighbors",
        "evaluation/knn.py",
        "[: k - len(above)]",
        "[len(above) - k :]",
        "test_ties",
    ),
    Mutation(
        "checkpoints without the optimizer's slots",
        "checkpoint/training_state.py",
        '"optimizer": model.optimizer.variables,',
        '"optimizer": model.optimizer.variables[:2],',
        "test_checkpoint",
    ),
    Mutation(
        "a batch skipped by a resume",
        "callbacks/resuming.py",
        'self.meta["epoch"], self.meta["batch"]\n',
        'self.meta["epoch"], self.meta["batch"] + 1\n',
        "test_resume",
    ),
    Mutation(
        "test labels of unknown classes",
        "labels.py",
        "unknown = np.setdiff1d(test_labels, train_labels)",
        "unknown = []",
        "test_label_entrances",
    ),
    Mutation(
        "accents in archives as they come",
        "data/names.py",
        'unicodedata.normalize("NFC", name.replace("\\\\", "/"))',
        'name.replace("\\\\", "/")',
        "test_left_out",
    ),
    Mutation(
        "an export on another scale",
        "export/saved_model.py",
        "return images * 255.0",
        "return images * 1.0",
        "test_export",
    ),
    Mutation(
        "tensors outside of their storage",
        "weights/tensors.py",
        "inside = self.offset + last < self.storage.count",
        "inside = True",
        "test_weight_files",
    ),
]


def outcome(mutation):
    """The test that notices a mutation, or why there is none.

    Args:
        mutation: `Mutation`.

    Returns:
        The pair `(caught, text)`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "repository"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".*cache", "__pycache__"))
        path = copy / "keras_barlow" / mutation.module
        text = path.read_text()
        if text.count(mutation.before) != 1:
            return False, f"the line is there {text.count(mutation.before)} times"
        path.write_text(text.replace(mutation.before, mutation.after))
        files = [f"tests/{name}.py" for name in mutation.tests.split()]
        command = [sys.executable, "-m", "pytest", "--numprocesses=0", "-x", "-q", "-rfE", "--tb=no", *files]
        environment = {**os.environ, "PYTHONPATH": str(copy), "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    failed = re.search(r"^FAILED tests/(.*?)(?: - |$)", done.stdout, re.MULTILINE)
    if done.returncode == 1 and failed:
        return True, failed.group(1)
    return False, "nothing" if done.returncode == 0 else f"pytest ended with status {done.returncode}"


def main():
    """Prints a table; the exit status is 1 if a mutation is not noticed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="text that the name of a mutation contains")
    only = parser.parse_args().only
    chosen = [mutation for mutation in MUTATIONS if only in mutation.name]
    missed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutation, (caught, text) in zip(chosen, pool.map(outcome, chosen), strict=True):
            missed += not caught
            print(f"| {mutation.name} | {mutation.module} | {text if caught else f'NOT CAUGHT: {text}'} |", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} caught")
    sys.exit(missed > 0)


if __name__ == "__main__":
    main()
