"""run.py: arguments, the stamp, the environment, the checks, and what it pins."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from types import ModuleType

import pytest
from run_case import ROOT, call, installed, outcome, run_in_a_folder

__all__ = ["run_in_a_folder"]

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("arguments", [["demo"], ["test", "-k", "x"], ["--tset"]])
def test_a_wrong_argument_is_one_sentence_and_exit_code_2(arguments: list[str]) -> None:
    result = call(str(ROOT / "run.py"), *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert f"got {' '.join(arguments)}." in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_names_both_commands() -> None:
    result = call(str(ROOT / "run.py"), "--help")
    assert result.returncode == 0
    assert re.findall(r"^python3 run.py(?: test)?", result.stdout, re.MULTILINE) == [
        "python3 run.py",
        "python3 run.py test",
    ]


def test_an_older_python_gets_one_sentence() -> None:
    pretend = "import runpy, sys; sys.version = '3.9.2 (old)'; sys.version_info = (3, 9, 2);"
    result = call("-c", pretend + f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')")
    assert result.returncode == 2
    assert result.stderr == "Python must be 3.11 or newer; got 3.9.2. Run this file with a newer one.\n"
    ast.parse((ROOT / "run.py").read_text(), feature_version=(3, 7))


def test_a_stamp_counts_for_what_it_was_made_for(run: ModuleType) -> None:
    assert not run.ready("base")
    installed(run, "base")
    assert run.ready("base")
    assert not run.ready("test")
    installed(run, "test")
    assert run.ready("base")
    assert run.ready("test")
    run.STAMP.write_bytes(b"\xff\x00")
    assert not run.ready("base")
    installed(run, "test")
    run.PYTHON.unlink()
    assert not run.ready("base")


def test_a_stamp_ends_with_its_sources_compiler_interpreter_or_folder(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    prints = [run.fingerprint()]
    monkeypatch.setattr(run.shutil, "which", lambda name: "/usr/bin/c++")
    prints.append(run.fingerprint())
    for name in ("pyproject.toml", "CMakeLists.txt", "csrc/kernel.cpp", "csrc/cells/gru.hpp", "csrc/kernel.cpp"):
        (run.ROOT / name).parent.mkdir(exist_ok=True)
        with (run.ROOT / name).open("a") as file:
            file.write("\n# changed\n")
        prints.append(run.fingerprint())
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-399")
    prints.append(run.fingerprint())
    (run.ROOT / "moved").mkdir()
    for name in ("pyproject.toml", "CMakeLists.txt", "csrc"):
        (run.ROOT / name).rename(run.ROOT / "moved" / name)
    monkeypatch.setattr(run, "ROOT", run.ROOT / "moved")
    prints.append(run.fingerprint())
    assert len(set(prints)) == len(prints) == 9


def test_nothing_is_started_when_all_is_there(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(run, "test")
    monkeypatch.setattr(run, "quiet", lambda *command: pytest.fail(f"started {command}"))
    run.prepare("base")
    run.prepare("test")


def test_a_broken_venv_is_made_anew_and_a_working_one_kept(run: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    run.PYTHON.parent.mkdir(parents=True)
    run.PYTHON.symlink_to("nowhere")
    (run.VENV / "left").touch()
    run.make_venv(system_site=False)
    assert call("-c", "", python=run.PYTHON).returncode == 0
    assert not (run.VENV / "left").exists()
    assert "Remaking .venv with Python" in capsys.readouterr().out
    (run.VENV / "mine").touch()
    run.make_venv(system_site=True)
    assert (run.VENV / "mine").exists()
    assert capsys.readouterr().out == ""


def test_a_venv_made_by_hand_for_another_python_is_not_touched(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "quiet", lambda *command: outcome(stdout="venv True 3 99\n"))
    with pytest.raises(SystemExit) as stopped:
        run.make_venv(system_site=False)
    assert stopped.value.code == 1
    assert ".venv must be of the Python that runs this file; got 3.99." in capsys.readouterr().err


def test_half_installed_packages_are_forgotten(run: ModuleType) -> None:
    site = run.VENV / run.SITE.replace("*", "3.11")
    for name in ("whole-1.dist-info", "half-1.dist-info"):
        (site / name).mkdir(parents=True)
    (site / "whole-1.dist-info/INSTALLER").write_text("pip\n")
    run.forget_half_installed()
    assert [path.name for path in site.iterdir()] == ["whole-1.dist-info"]


@pytest.mark.parametrize("line", ["Native kernels: baseline, avx2", "Native kernels: none, no C++ compiler"])
def test_what_cmake_says_of_the_kernels_is_said(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    for name in ("make_venv", "install_pip", "install_torch", "torch_folder"):
        monkeypatch.setattr(run, name, lambda *arguments, **options: None)
    monkeypatch.setattr(run, "pip", lambda *arguments: outcome(0, f"  -- noise\n  {line}\n  more\n"))
    run.VENV.mkdir()
    run.prepare("base")
    assert capsys.readouterr().out.splitlines()[-1] == line
    assert run.STAMP.is_file()


def test_every_check_runs_and_one_failure_fails_all(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {"ruff": 1, "pytest": 5}
    monkeypatch.setattr(run, "loud", lambda *command: codes.get(command[2], 0))
    assert run.check() == 1
    closing = capsys.readouterr().out.strip().splitlines()[-4:]
    assert [line.split(" after ")[0].split(maxsplit=1) for line in closing] == [
        ["ruff", "failed with exit code 1"],
        ["mypy", "passed"],
        ["import-linter", "passed"],
        ["pytest", "failed with exit code 5"],
    ]
    del codes["ruff"]
    assert run.check() == 1
    codes.clear()
    assert run.check() == 0


def test_ctrl_c_and_refusals_of_the_system_are_one_line(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, code, words in (
        (KeyboardInterrupt(), 130, "Stopped. Give the same command again."),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
    ):

        def interrupted(extra: str, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(run, "prepare", interrupted)
        with pytest.raises(SystemExit) as stopped:
            run.main([])
        assert stopped.value.code == code
        said = capsys.readouterr().err.strip()
        assert words in said
        assert "\n" not in said


def test_torch_alone_is_pinned_and_only_in_run_py() -> None:
    project = PYPROJECT["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    for requirement in [*project["dependencies"], *extras, *PYPROJECT["build-system"]["requires"]]:
        assert re.search(r"==|~=|<|@", requirement) is None, requirement
    pins = re.findall(r"(\w+)==", (ROOT / "run.py").read_text())
    assert set(pins) == {"torch"}
    pinned = re.search(r'^TORCH = "([\d.]+)"$', (ROOT / "run.py").read_text(), re.MULTILINE)
    assert pinned is not None
    for name in ("pyproject.toml", ".ci/run", *(str(path) for path in (ROOT / "src").rglob("*.py"))):
        assert pinned[1] not in (ROOT / name).read_text(), name


def test_run_py_and_pyproject_agree_on_the_oldest_torch(run: ModuleType) -> None:
    assert f"torch>={'.'.join(map(str, run.OLDEST_TORCH))}" in PYPROJECT["project"]["dependencies"]
