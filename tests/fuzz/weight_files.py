"""Reads thousands of damaged weights files, in processes that must not crash, hang or grow.

python tests/fuzz/weight_files.py --files=10000            # 2 to 3 minutes on one core
python tests/fuzz/weight_files.py --files=10000 --seed=1   # other files
python tests/fuzz/weight_files.py --seed=1 --only=123      # repeat one file, with its traceback

Each file is a valid file of `torch.save` (zip and legacy) or safetensors with one to three mutations. It must be read,
or rejected with a ValueError of this library that says what was received. All tensors of a file that is read must lie
in the memory of their storages. Any other outcome is printed with the command that repeats it, and the exit status is
1. The processes import only the reader, neither TensorFlow nor PyTorch.
"""

import argparse
import collections
import importlib
import os
import pathlib
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import types

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.fuzz import mutations  # noqa: E402

REPORT = struct.Struct("<IBdQ400s")  # Number, outcome, seconds, peak memory, text.
STARTED, READ, REFUSED, OTHER = range(4)
PER_PROCESS = 250


def write_bases(folder):
    """Writes valid files in a separate process, because the readers must not import PyTorch."""
    subprocess.run([sys.executable, ROOT / "tests" / "fuzz" / "sound_files.py", folder], check=True)


def bases_in(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def reader():
    """Imports `read_tensors` without the package, which would import TensorFlow."""
    for name in ("keras_barlow", "keras_barlow.weights"):
        module = types.ModuleType(name)
        module.__path__ = [str(ROOT.joinpath(*name.split(".")))]
        sys.modules.setdefault(name, module)
    return importlib.import_module("keras_barlow.weights.torch_file").read_tensors


def check(read_tensors, path):
    """Reads a whole file. Returns None on success, or the text of the error."""
    try:
        tensors = read_tensors(path)
        copied = 0
        for name, tensor in tensors.items():
            if tensor.storage.dtype is None:
                continue
            check_memory(name, tensor)
            copied += tensor.read().nbytes
            if copied < 2**27:
                tensor.read().copy()
    except ValueError as error:
        if type(error) is ValueError and " Received: " in str(error) and str(error).endswith("."):
            return str(error)
        raise
    return None


def check_memory(name, tensor):
    """An independent oracle: compares the first and last address of a view with its buffer."""
    view, numbers = tensor.read(), tensor.storage.read()
    first = last = view.__array_interface__["data"][0]
    for size, stride in zip(view.shape, view.strides, strict=True):
        first, last = first + min(0, (size - 1) * stride), last + max(0, (size - 1) * stride)
    start = numbers.__array_interface__["data"][0]
    if view.size and not start <= first <= last + view.itemsize <= start + numbers.nbytes:
        raise AssertionError(f"{name} lies outside of its storage")


def damaged(bases, seed, number):
    return mutations.damage(random.Random(f"{seed}:{number}"), bases)


def read_in_child(read_tensors, bases, arguments, numbers, pipe, folder):
    """Runs in a child process: reads files one after another and reports on each."""
    resource.setrlimit(resource.RLIMIT_AS, (arguments.memory * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = os.path.join(folder, "file")
    for number in numbers:
        what, content = damaged(bases, arguments.seed, number)
        with open(path, "wb") as file:
            file.write(content)
        report(pipe, number, STARTED, 0, what)
        start = time.perf_counter()
        try:
            refusal = check(read_tensors, path)
            outcome, text = (READ, "") if refusal is None else (REFUSED, refusal.split(path)[-1])
        except BaseException as error:  # Any other error is a finding.
            outcome, text = OTHER, f"{type(error).__name__}: {error}"
        report(pipe, number, outcome, time.perf_counter() - start, text)


def report(pipe, number, outcome, seconds, text):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.write(pipe, REPORT.pack(number, outcome, seconds, peak, text.encode("utf-8", "replace")))


def reports(read_tensors, bases, arguments, numbers, folder):
    """Reads files in a child process and yields its reports, and how it ended if it crashed."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        os.close(receive)
        try:
            read_in_child(read_tensors, bases, arguments, numbers, send, folder)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    os.close(send)
    number, ended = numbers[0], None
    while True:
        if not select.select([receive], [], [], arguments.seconds)[0]:
            os.kill(child, signal.SIGKILL)
            ended = f"it took more than {arguments.seconds} s"
        data = os.read(receive, REPORT.size)
        if len(data) < REPORT.size:
            break
        number, outcome, seconds, peak, text = REPORT.unpack(data)
        yield number, outcome, seconds, peak, text.rstrip(b"\0").decode("utf-8", "replace")
    os.close(receive)
    _, status = os.waitpid(child, 0)
    if ended or status:
        yield number, OTHER, 0.0, 0, ended or f"the process ended with status {status}"


def fuzz(arguments, folder):
    """Reads all files and prints a summary. Returns whether every file was read or rejected."""
    write_bases(folder)
    bases, read_tensors = bases_in(folder), reader()
    for name in bases:
        if refusal := check(read_tensors, os.path.join(folder, name)):
            raise SystemExit(f"The sound file {name} is not read: {refusal}")
    tally, others, waiting, begun = collections.Counter(), [], list(range(arguments.files)), time.perf_counter()
    slowest, highest, kinds, what = (0.0, None), 0, {}, ""
    while waiting:
        done = set()
        for number, outcome, seconds, peak, text in reports(
            read_tensors, bases, arguments, waiting[:PER_PROCESS], folder
        ):
            highest = max(highest, peak)
            if outcome == STARTED:
                what = text
                continue
            done.add(number)
            tally[outcome] += 1
            slowest = max(slowest, (seconds, f"{number} ({what})"))
            kinds.setdefault(what.split(":")[0], collections.Counter())[outcome] += 1
            if outcome == OTHER:
                others.append((number, what, text))
        waiting = waiting[max(1, len(done)) :]
    print(f"{arguments.files} files, seed {arguments.seed}, {time.perf_counter() - begun:.0f} s")
    print(f"read {tally[READ]}, rejected {tally[REFUSED]}, anything else {tally[OTHER]}")
    for name, counts in sorted(kinds.items()):
        print(f"  {name:18} read {counts[READ]:5}, rejected {counts[REFUSED]:5}, else {counts[OTHER]}")
    print(f"slowest file {slowest[0]:.2f} s: {slowest[1]}; peak memory {highest / 1024:.0f} MB")
    for number, what, text in others[:20]:
        print(f"python {sys.argv[0]} --seed={arguments.seed} --only={number}  # {what}: {text}")
    return not others


def again(arguments, folder):
    """Writes one file, keeps it, and reads it in this process."""
    write_bases(folder)
    what, content = damaged(bases_in(folder), arguments.seed, arguments.only)
    path = pathlib.Path(tempfile.gettempdir()) / f"fuzz_{arguments.seed}_{arguments.only}"
    path.write_bytes(content)
    print(f"{path}: {what}")
    try:
        print(check(reader(), str(path)) or "It was read.")
    except BaseException:
        traceback.print_exc()
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="decides which")
    parser.add_argument("--only", type=int, help="number of the one file to read again")
    parser.add_argument("--seconds", type=float, default=10.0, help="that one file may take")
    parser.add_argument("--memory", type=int, default=1024, help="address space of a process that reads, in MB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sound = again(arguments, folder) if arguments.only is not None else fuzz(arguments, folder)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
