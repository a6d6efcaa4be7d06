"""Tests the package with all supported versions, each in its own virtual environment.

    python tools/compatibility.py                                        # all rows: about an hour on two CPU cores
    python tools/compatibility.py --rows=lowest --environments=envs      # one row, and keep its environment
    python tools/compatibility.py --rows=here --tests=none               # the current environment, 1 minute

For each row, it installs the pinned versions and the package with its `tensorflow` and `test` extras without changing
the pins, then runs `pip check`, `main_job.py` (train, resume, save, export, load) and the core tests. It prints a table
like

    row     Python  TensorFlow  Keras   pip check  main job  passed  failed  skipped  minutes
    lowest  3.11.7  2.18.1      3.10.0  clean      passed       612       0        2      9.8

and exits with status 1 if any check failed. This file needs only Python itself. A row is skipped if its Python version
is not installed, which is an error only if --rows names it. You may interrupt and restart it at any time: an
environment is reused only if its installation was completed.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Runs in a row's environment and prints the installed versions.
INSTALLED = """
import importlib.metadata, json, platform
names = {item.metadata["Name"].lower().replace("_", "-"): item.version for item in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version(), **names}))
"""
INSTALL_SECONDS, MAIN_JOB_SECONDS, TEST_SECONDS = 3600, 900, 5400
# Slow tests of optional packages, of the repository itself, or of file formats, for which one version of Keras is
# enough.
NOT_CORE = {
    "faults",
    "fuzz",
    "test_ablations.py",
    "test_architecture.py",
    "test_arrays.py",
    "test_compare.py",
    "test_compatibility.py",
    "test_decoding.py",
    "test_detection.py",
    "test_file_names.py",
    "test_left_out.py",
    "test_pretrain.py",
    "test_quickstart.py",
    "test_ties.py",
    "test_tpu.py",
    "test_weight_files.py",
    "test_workers.py",
    "test_worked_examples.py",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One combination of versions.

    Args:
        name: Name in --rows and in the table.
        python: Python version, such as "3.11"; None for the current environment.
        pins: Pinned requirements; empty for the newest versions.
        without: Packages of the extras that conflict with the pins.
    """

    name: str
    python: str | None
    pins: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


# The README and pyproject.toml list the same versions; tests/test_compatibility.py compares them.
ROWS = (
    Row("lowest", "3.11", ("tensorflow==2.18.1", "keras==3.10.0")),
    Row("middle", "3.12", ("tensorflow==2.19.1", "keras==3.11.3")),
    # The other packages require `tensorflow`, which would overwrite the files of `tensorflow-cpu`.
    Row(
        "kaggle",
        "3.12",
        ("tensorflow-cpu==2.20.0", "keras==3.13.2"),
        without=("tensorflow", "tf-keras", "keras-hub", "tensorflow-hub"),
    ),
    Row("colab", "3.13", ("tensorflow==2.20.0", "keras==3.13.2")),
    Row("newest", "3.13"),
)
HERE = Row("here", None)


def main():
    arguments = parse_arguments()
    rows = {row.name: row for row in (*ROWS, HERE)}
    chosen = [rows[name] for name in arguments.rows] if arguments.rows else ROWS
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(arguments.environments or temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for row in chosen:
            results.append(check(row, folder, arguments))
            print("\n" + table(results) + "\n", flush=True)
            if not arguments.environments:
                shutil.rmtree(folder / row.name, ignore_errors=True)
    failed = [result["row"] for result in results if result["failed"] or (result["skipped"] and arguments.rows)]
    sys.exit(f"Failed: {', '.join(failed)}." if failed else 0)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in (*ROWS, HERE)]
    parser.add_argument("--rows", help=f"Comma-separated names: {', '.join(names)}. Default: all but `here`.")
    parser.add_argument("--environments", help="Folder for environments and logs. Default: a temporary folder.")
    parser.add_argument("--tests", default="core", choices=("core", "none"), help="Which tests to run.")
    parser.add_argument("--pytest", default="", help="Additional arguments for pytest, such as '-k losses'.")
    arguments = parser.parse_args()
    arguments.rows = [name for name in (arguments.rows or "").split(",") if name]
    unknown = sorted(set(arguments.rows) - set(names))
    if unknown:
        parser.error(f"`--rows` must contain only {', '.join(names)}. Received: {', '.join(unknown)}.")
    return arguments


def check(row, folder, arguments):
    """Runs all checks of a row and returns its line of the table. Later checks run even if earlier ones fail."""
    started = time.time()
    result = {"row": row.name, "python": row.python, "failed": False, "skipped": False}
    base = sys.executable if row.python is None else interpreter(row.python)
    if base is None:
        say(row, f"skipped: Python {row.python} with venv is not installed")
        return {**result, "skipped": True, "pip check": "no Python"}
    log = folder / f"{row.name}.log"
    with log.open("w") as output:
        python = environment(row, base, folder, output)
        if python is None:
            return {**result, "failed": True, "pip check": "no install", **report(row, log)}
        versions = json.loads(run([python, "-c", INSTALLED], None, 60).stdout)
        result["python"] = versions["python"]
        result["tensorflow"] = versions.get("tensorflow") or versions.get("tensorflow-cpu")
        result["keras"] = versions.get("keras")
        say(row, f"Python {result['python']}, TensorFlow {result['tensorflow']}, Keras {result['keras']}")
        changed = [pin for pin in row.pins if versions.get(pin.split("==")[0]) != pin.split("==")[1]]
        changed += [name for name in row.without if name in versions]
        clean = run([python, "-m", "pip", "check"], output, 120).returncode == 0 and not changed
        result["pip check"] = "changed pins" if changed else "clean" if clean else "broken"
        say(row, f"pip check: {result['pip check']}; main job ...")
        with tempfile.TemporaryDirectory() as elsewhere:
            job = run([python, ROOT / "tools" / "main_job.py"], output, MAIN_JOB_SECONDS, elsewhere).returncode == 0
        result["main job"] = "passed" if job else "FAILED"
        tested = True
        if arguments.tests == "core":
            say(row, f"main job: {result['main job']}; core tests ...")
            command = [python, "-m", "pytest", "-q", "-rfEs", *core_tests(), *arguments.pytest.split()]
            tested = run(command, output, TEST_SECONDS).returncode == 0
            result.update(counts(log.read_text(errors="replace")))
    result["failed"] = not (clean and job and tested)
    result["minutes"] = f"{(time.time() - started) / 60:.1f}"
    if result["failed"]:
        report(row, log)
    return result


def core_tests():
    """Returns all test files that are not in `NOT_CORE`, and the package itself for its doctests."""
    files = sorted(path for path in (ROOT / "tests").glob("test_*.py") if path.name not in NOT_CORE)
    return [*(str(path.relative_to(ROOT)) for path in files), "keras_barlow"]


def interpreter(version):
    """Returns the path of a working Python of this version that can create environments, or None."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv")) / "versions"
    folders = [pathlib.Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    candidates = [pathlib.Path(sys.executable), *(folder / f"python{version}" for folder in folders)]
    candidates += sorted(pyenv.glob(f"{version}*/bin/python"), reverse=True)
    probe = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        # Some candidates are shims of inactive versions, and some lack ensurepip.
        if candidate.exists():
            done = run([candidate, "-c", probe], None, 60)
            if done.returncode == 0 and done.stdout.strip() == version:
                return str(candidate)
    return None


def environment(row, base, folder, output):
    """Returns the Python of the row's environment, after creating or updating it; None if that fails."""
    if row.python is None:
        return base
    place = folder / row.name
    python, stamp = place / "bin" / "python", place / "row.json"
    base_settings, requirements = settings(row)
    before = json.loads(stamp.read_text()) if stamp.exists() else [None, None]
    if before == [base_settings, requirements]:
        say(row, f"environment: {place}, reused")
        return str(python)
    say(row, f"environment: {place}, installing with {base} ...")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = []
    if before[0] != base_settings:
        shutil.rmtree(place, ignore_errors=True)
        commands = [[base, "-m", "venv", str(place)], [*pip, "--upgrade", "pip"]]
    stamp.unlink(missing_ok=True)
    constraints = folder / f"{row.name}.txt"
    constraints.write_text("".join(f"{pin}\n" for pin in row.pins))
    commands.append([*pip, "--constraint", str(constraints), *row.pins, *package(row)])
    for command in commands:
        if run(command, output, INSTALL_SECONDS).returncode:
            return None
    stamp.write_text(json.dumps([base_settings, requirements]))
    return str(python)


def settings(row):
    """Returns what an environment is created from and what is installed in it. A change recreates or updates it."""
    # The newest versions may change every day.
    day = "" if row.pins else datetime.date.today().isoformat()
    base_settings = [row.python, list(row.pins), list(row.without), day]
    return base_settings, [str(ROOT), json.loads(json.dumps(project()))]


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def package(row):
    """Returns the arguments of `pip install` for the package and its two extras, without the packages in `without`."""
    if not row.without:
        return ["--editable", f"{ROOT}[tensorflow,test]"]
    extras = project()["optional-dependencies"]
    requirements = [item for extra in ("tensorflow", "test") for item in extras[extra]]
    return ["--editable", str(ROOT), *(item for item in requirements if requirement_name(item) not in row.without)]


def requirement_name(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower()


def run(command, output, seconds, folder=ROOT):
    """Runs a command. Its output goes to the log, or is captured if there is no log."""
    # Import the package from the environment, as users do.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}
    if output is not None:
        output.write(f"$ {' '.join(map(str, command))}\n")
        output.flush()
    streams = {"stdout": output, "stderr": subprocess.STDOUT} if output else {"capture_output": True}
    try:
        return subprocess.run(
            command, cwd=folder, env=variables, timeout=seconds, text=True, stdin=subprocess.DEVNULL, **streams
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        if output is not None:
            output.write(f"{error}\n")
            output.flush()
        return subprocess.CompletedProcess(command, 1, "", str(error))


def counts(log):
    """Reads the numbers of passed, failed and skipped tests from the summary of pytest."""
    summary = next((line for line in reversed(log.splitlines()) if re.search(r"\d+ (passed|failed|error)", line)), "")
    numbers = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", summary)}
    return {
        "passed": numbers.get("passed", 0),
        "failures": numbers.get("failed", 0) + numbers.get("error", 0) if summary else "no summary",
        "left out": numbers.get("skipped", 0),
    }


def report(row, log):
    """Prints the end of a failed row's log."""
    lines = log.read_text(errors="replace").splitlines()[-40:]
    print("\n".join([f"--- end of {row.name}.log", *lines, "---"]), flush=True)
    return {}


def say(row, text):
    print(f"[{datetime.datetime.now():%H:%M:%S}] {row.name}: {text}", flush=True)


def table(results):
    columns = {
        "row": "row",
        "python": "Python",
        "tensorflow": "TensorFlow",
        "keras": "Keras",
        "pip check": "pip check",
        "main job": "main job",
        "passed": "passed",
        "failures": "failed",
        "left out": "skipped",
        "minutes": "minutes",
    }
    lines = [list(columns.values())]
    lines += [
        [str(result.get(name) if result.get(name) is not None else "-") for name in columns] for result in results
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


if __name__ == "__main__":
    main()
