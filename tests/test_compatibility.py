"""README and pyproject.toml promise the versions that tools/compatibility.py tests."""

import dataclasses
import importlib.util
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TOOL = ROOT / "tools" / "compatibility.py"
SPEC = importlib.util.spec_from_file_location("compatibility", TOOL)
compatibility = importlib.util.module_from_spec(SPEC)
# Dataclasses look up their module.
sys.modules["compatibility"] = compatibility
SPEC.loader.exec_module(compatibility)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = [row for row in compatibility.ROWS if row.pins]


def pins(row):
    return {name.removesuffix("-cpu"): version for name, version in (pin.split("==") for pin in row.pins)}


def numbers(version):
    return tuple(map(int, version.split(".")))


def lowest(requirements, name):
    """Returns the minimum version in a list of requirements, as in `keras>=3.10`."""
    (found,) = filter(None, (re.fullmatch(rf"{re.escape(name)}>=([\d.]+)", item) for item in requirements))
    return found.group(1)


def test_the_lowest_versions_that_pip_accepts_are_a_row():
    row = min(PINNED, key=lambda row: numbers(pins(row)["tensorflow"]))
    extras = PROJECT["optional-dependencies"]
    accepted = {
        "keras": [lowest(PROJECT["dependencies"], "keras")],
        "tensorflow": [lowest(extras["tensorflow"], "tensorflow"), lowest(extras["gpu"], "tensorflow[and-cuda]")],
    }
    for name, versions in accepted.items():
        assert {numbers(f"{version}.0")[:3] for version in versions} == {numbers(pins(row)[name])}
        assert all(numbers(pins(row)[name]) <= numbers(pins(other)[name]) for other in PINNED)
    assert PROJECT["requires-python"] == f">={row.python}"
    assert row.python == min((row.python for row in compatibility.ROWS), key=numbers)


def test_the_readme_promises_the_rows():
    readme = (ROOT / "README.md").read_text().split("## Installing")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("| ").split("|")] for line in readme.splitlines() if "|" in line]
    promised = [line[:4] for line in lines[2:]]
    rows = [
        [f"`{row.name}`", row.python, *(pins(row).get(name, "newest") for name in ("tensorflow", "keras"))]
        for row in compatibility.ROWS
    ]
    assert promised == rows


@pytest.mark.parametrize("row", compatibility.ROWS, ids=lambda row: row.name)
def test_an_install_has_both_extras_without_excluded_packages(row):
    arguments = compatibility.package(row)
    assert arguments[0] == "--editable"
    if not row.without:
        assert arguments[1].endswith("[tensorflow,test]") and len(arguments) == 2
        return
    names = {compatibility.requirement_name(item) for item in arguments[2:]}
    extras = PROJECT["optional-dependencies"]
    everything = {compatibility.requirement_name(item) for name in ("tensorflow", "test") for item in extras[name]}
    assert names == everything - set(row.without) and set(row.without) <= everything


def test_broken_interpreters_are_skipped(tmp_path, monkeypatch):
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for folder, text in {"broken": "#!/bin/sh\nexit 127\n", "other": "#!/bin/sh\necho 3.9\n"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"python{version}").write_text(text)
        (tmp_path / folder / f"python{version}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/broken:{tmp_path}/other")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert compatibility.interpreter("3.99") is None
    monkeypatch.setattr(compatibility.sys, "executable", f"{tmp_path}/broken/python{version}")
    assert compatibility.interpreter(version) is None
    (tmp_path / "versions" / f"{version}.1" / "bin").mkdir(parents=True)
    works = tmp_path / "versions" / f"{version}.1" / "bin" / "python"
    works.write_text(f"#!/bin/sh\necho {version}\n")
    works.chmod(0o755)
    assert compatibility.interpreter(version) == str(works)


def test_an_environment_is_recreated_when_its_settings_change(tmp_path, monkeypatch):
    row, commands, status = compatibility.ROWS[0], [], 0

    def run(command, output, seconds):
        commands.append(command)
        (tmp_path / row.name).mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(compatibility, "run", run)
    status = 1
    assert compatibility.environment(row, "python", tmp_path, None) is None
    assert len(commands) == 1 and not (tmp_path / row.name / "row.json").exists()
    status = 0
    assert compatibility.environment(row, "python", tmp_path, None)
    assert len(commands) == 4 and set(row.pins) <= set(commands[-1])
    assert (tmp_path / f"{row.name}.txt").read_text().split() == list(row.pins)
    assert compatibility.environment(row, "python", tmp_path, None) and len(commands) == 4
    monkeypatch.setattr(compatibility, "project", lambda: {"dependencies": ["another"]})
    assert compatibility.environment(row, "python", tmp_path, None) and len(commands) == 5 and "install" in commands[-1]
    other = dataclasses.replace(row, pins=("tensorflow==2.99.0",))
    assert compatibility.environment(other, "python", tmp_path, None) and len(commands) == 8 and "venv" in commands[-3]


def test_counts_are_read_from_the_summary_of_pytest():
    log = "3 failed in it\n= 2 failed, 610 passed, 3 skipped, 1 error in 9.12s =\nI0000 a line of TensorFlow\n"
    assert compatibility.counts(log) == {"passed": 610, "failures": 3, "left out": 3}
    assert compatibility.counts("Killed")["failures"] == "no summary"


@pytest.mark.parametrize("broken", [None, "pip", "main_job.py", "pytest", "pins", "interpreter"])
def test_the_exit_status_reflects_failures(broken, tmp_path, monkeypatch, capsys):
    row = compatibility.ROWS[0]
    versions = {"python": "3.11.9", **dict(pin.split("==") for pin in row.pins)}
    if broken == "pins":
        versions["keras"] = "3.99.0"

    def run(command, output, seconds, folder=None):
        words = " ".join(map(str, command))
        if output is not None and "pytest" in words:
            output.write("5 passed in 1s\n")
            output.flush()
        failed = broken is not None and broken in words.replace("-m pip check", "-m pip")
        return subprocess.CompletedProcess(command, int(failed), str(versions).replace("'", '"'), "")

    monkeypatch.setattr(compatibility, "run", run)
    monkeypatch.setattr(compatibility, "environment", lambda *arguments: "python")
    monkeypatch.setattr(compatibility, "interpreter", lambda version: None if broken == "interpreter" else "python")
    monkeypatch.setattr(sys, "argv", ["compatibility.py", f"--rows={row.name}", f"--environments={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        compatibility.main()
    printed = capsys.readouterr().out
    if broken is None:
        assert ended.value.code == 0
        assert re.search(r"lowest +3\.11\.9 +2\.18\.1 +3\.10\.0 +clean +passed +5 +0 +0", printed)
    else:
        assert ended.value.code == f"Failed: {row.name}."


def test_an_unknown_row_is_rejected():
    done = subprocess.run([sys.executable, TOOL, "--rows=lowest,oldest"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "lowest, middle, kaggle, colab, newest, here. Received: oldest" in done.stderr
