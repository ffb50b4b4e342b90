"""run.py: ways to pip, which torch, and what it says when an installation fails."""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from run_case import call, outcome, run_in_a_folder

__all__ = ["run_in_a_folder"]

FAKE_PIP = """\
import pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
(site / "pip").mkdir()
(site / "pip" / "__init__.py").touch()
(site / "pip-1.0.dist-info").mkdir()
(site / "pip-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\\nName: pip\\nVersion: 1.0\\n")
"""


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


def test_without_ensurepip_a_pip_wheel_in_a_folder_serves(bare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = lay_pip_wheel(bare.ROOT / "wheels")
    folders = {"find-links": [f"file://{wheel.parent}"]}
    monkeypatch.setattr(bare, "pip_settings", lambda name: folders.get(name, []))
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter([wheel] if path == wheel.parent else []))
    bare.install_pip()
    assert has_pip(bare)


def test_without_ensurepip_other_pips_are_tried_in_order(bare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_pip_settings_come_from_the_environment_and_files(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    config = run.ROOT / "pip.conf"
    config.write_text("[global]\nfind-links =\n    /one\n    /two\nindex-url = https://index.example/simple\n")
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
