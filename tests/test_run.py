"""run.py: arguments, the stamp, ways to pip, which torch, and what it says when something fails."""

from __future__ import annotations

import ast
import functools
import hashlib
import http.server
import importlib.util
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FAKE_PIP = """\
import pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
(site / "pip").mkdir()
(site / "pip" / "__init__.py").touch()
(site / "pip-1.0.dist-info").mkdir()
(site / "pip-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\\nName: pip\\nVersion: 1.0\\n")
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py in a folder of its own, as if freshly cloned."""
    for name in ("run.py", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    spec = importlib.util.spec_from_file_location("run_in_a_folder", tmp_path / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return module


def outcome(code: int = 0, stdout: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess([], code, stdout)


def installed(run: ModuleType, extra: str) -> None:
    run.PYTHON.parent.mkdir(parents=True, exist_ok=True)
    run.PYTHON.touch()
    run.STAMP.write_text(f"{run.fingerprint()} {extra}\n")


def call(*arguments: str, python: Path = Path(sys.executable)) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *arguments], capture_output=True, text=True, timeout=60)


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


def test_a_broken_venv_is_made_anew_and_a_working_one_kept(
    run: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
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


@pytest.fixture
def bare(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py on a machine without ensurepip, pip, uv and settings for pip, its .venv made."""
    quiet = run.quiet

    def without_pip(*command: str | Path) -> subprocess.CompletedProcess[str]:
        if "-m" in command:
            return outcome(1, f"No module named {command[command.index('-m') + 1]}")
        return quiet(*command)

    run.make_venv(system_site=False)
    monkeypatch.setattr(run, "quiet", without_pip)
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    monkeypatch.setattr(run, "pip_settings", lambda name: [])
    return run


def lay_pip_wheel(folder: Path) -> Path:
    folder.mkdir(parents=True)
    wheel = folder / "pip-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pip/__main__.py", FAKE_PIP)
    return wheel


def has_pip(run: ModuleType) -> bool:
    return call("-c", run.SEE_PIP, python=run.PYTHON).returncode == 0


def test_without_ensurepip_a_pip_wheel_in_a_folder_serves(
    bare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = lay_pip_wheel(bare.ROOT / "wheels")
    folders = {"find-links": [f"file://{wheel.parent}"]}
    monkeypatch.setattr(bare, "pip_settings", lambda name: folders.get(name, []))
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter([wheel] if path == wheel.parent else []))
    bare.install_pip()
    assert has_pip(bare)


def test_without_ensurepip_other_pips_are_tried_in_order(
    bare: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bare.shutil, "which", lambda name: f"/somewhere/{name}")
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter([]))
    ways = [" ".join(map(str, way)).replace(str(bare.PYTHON), "VENV") for way in bare.ways_to_pip()]
    assert ways == [
        "VENV -m ensurepip --default-pip",
        f"{sys.executable} -m pip --python VENV install pip",
        "pip3 --python VENV install pip",
        "pip --python VENV install pip",
        "uv pip install --python VENV pip",
    ]


def test_without_any_way_to_pip_one_sentence_says_what_to_install(
    bare: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter([]))
    with pytest.raises(SystemExit) as stopped:
        bare.install_pip()
    assert stopped.value.code == 1
    assert "Install it (Debian: apt install python3-venv)" in capsys.readouterr().err


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package index on this machine that has two pip wheels, the newer one with its hash."""
    wheel = lay_pip_wheel(tmp_path / "served/files")
    mark = hashlib.sha256(wheel.read_bytes()).hexdigest()
    page = tmp_path / "served/simple/pip/index.html"
    page.parent.mkdir(parents=True)
    older = '<a href="../../files/pip-0.9-py3-none-any.whl">'
    page.write_text(f'{older} <a href="../../files/{wheel.name}#sha256={mark}">')
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple/"
        server.shutdown()


def test_pip_is_fetched_from_an_index(bare: ModuleType, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bare, "pip_settings", lambda name: [index] if name == "index-url" else [])
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter([]))
    bare.install_pip()
    assert has_pip(bare)


def test_a_pip_wheel_with_another_hash_is_refused(bare: ModuleType, index: str, tmp_path: Path) -> None:
    with (tmp_path / "served/files/pip-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"more")
    assert bare.fetch_pip(index) is None
    assert bare.fetch_pip("http://127.0.0.1:9/simple") is None


def test_pip_settings_come_from_the_environment_and_files(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run.ROOT / "pip.conf"
    config.write_text(
        "[global]\nfind-links =\n    /one\n    /two\nindex-url = https://index.example/simple\n"
    )
    monkeypatch.setenv("HOME", str(run.ROOT))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_FIND_LINKS", "/zero")
    assert run.pip_settings("find-links") == ["/zero", "/one", "/two"]
    assert run.pip_settings("index-url")[-1] == "https://index.example/simple"


def report(*names: str) -> dict[str, Any]:
    return {"install": [{"metadata": {"name": name, "version": "1"}} for name in names]}


def test_gpu_packages_are_found_in_a_report_of_pip(run: ModuleType) -> None:
    assert run.cuda_packages({}) == []
    assert run.cuda_packages(report("torch", "sympy", "filelock", "numpy")) == []
    found = run.cuda_packages(report("torch", "nvidia_cublas", "nvidia-cudnn-cu13", "triton", "cuda-toolkit"))
    assert found == ["nvidia-cublas", "nvidia-cudnn-cu13", "triton", "cuda-toolkit"]


@pytest.mark.parametrize("answer", [{}, report("torch", "sympy"), report("torch", "nvidia-cublas", "triton")])
def test_the_cuda_build_is_announced_before_it_is_fetched(
    run: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: dict[str, Any],
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(run, "torch_folder", lambda python: None)
    monkeypatch.setattr(run, "dry_run", lambda: answer)
    monkeypatch.setattr(run, "pip", lambda *arguments: outcome())
    run.install_torch(None)
    said = capsys.readouterr().out
    assert "Installing torch" in said
    notice, _, _ = said.partition("Installing torch")
    if len(answer.get("install", [])) > 2:
        assert "2 packages for it, about 3 gigabytes" in notice
        assert f"{run.shown(run.PYTHON)} -m pip install torch=={run.TORCH} --index-url ADDRESS" in notice
    else:
        assert "gigabytes" not in said


def test_a_torch_that_is_there_is_used(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "pip", lambda *arguments: pytest.fail("pip was asked"))
    there = "a warning\ntorch 2.6.0+cpu /some where/torch\n"
    monkeypatch.setattr(run, "quiet", lambda *command: outcome(stdout=there))
    assert run.torch_folder("python") == "/some where"
    run.install_torch("/some where")
    for answer in ("torch 2.5.1 /somewhere/torch\n", "No module named torch\n", ""):
        monkeypatch.setattr(run, "quiet", lambda *command, answer=answer: outcome(stdout=answer))
        assert run.torch_folder("python") is None


def test_a_failure_of_pip_shows_its_last_error_and_what_to_do(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = "WARNING: Retrying after connection broken\n" * 5 + "ERROR: No matching distribution for x\n"
    monkeypatch.setattr(run, "pip", lambda *arguments: outcome(1, noise))
    with pytest.raises(SystemExit) as stopped:
        run.install("x", "x")
    assert stopped.value.code == 1
    first, error, advice = capsys.readouterr().err.strip().splitlines()
    assert first == "Installing x failed:"
    assert error == "ERROR: No matching distribution for x"
    assert advice.startswith("The network may be the cause")


def test_a_failure_of_the_compiler_shows_its_error_and_the_way_round(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = "csrc/sweep.hpp:7:3: error: '__builtin_unreachable' was not declared"
    noise = f"  {error}\n  *** CMake build failed\nERROR: Failed building editable for throughtime\n"
    monkeypatch.setattr(run, "pip", lambda *arguments: outcome(1, noise))
    with pytest.raises(SystemExit):
        run.install("throughtime", "--editable", ".")
    said = capsys.readouterr().err
    assert error in said
    assert "network" not in said
    assert "set SKBUILD_CMAKE_DEFINE=THROUGHTIME_NATIVE=OFF" in said


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
