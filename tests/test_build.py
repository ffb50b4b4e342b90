"""The build: what the compiled module rests on, and that a wheel made without a C++ compiler runs."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NATIVE = importlib.util.find_spec("throughtime._native")
MAPPED = """
import torch, throughtime._native
with open("/proc/self/maps") as maps:
    print(*sorted({line.split()[-1] for line in maps if "/" in line}), sep="\\n")
"""

needs_native = pytest.mark.skipif(NATIVE is None, reason="throughtime._native was not built")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is Linux's")


@needs_native
@needs_linux
def test_one_openmp_runtime_is_loaded_and_it_is_torchs() -> None:
    """A second runtime's threads would spin against those of the first."""
    said = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, check=True, timeout=100)
    files = [Path(line) for line in said.stdout.splitlines()]
    assert any(file.name.startswith("_native.") for file in files)
    runtimes = [file for file in files if re.match(r"lib(gomp|omp|iomp5)\b", file.name)]
    assert len(runtimes) <= 1, runtimes
    own = Path(torch.__file__).parent / "lib/libgomp.so.1"
    assert not own.exists() or runtimes in ([], [own.resolve()])


@needs_native
@needs_linux
@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is missing")
def test_the_module_needs_no_torch_and_has_no_path_of_its_own() -> None:
    assert NATIVE is not None
    assert NATIVE.origin is not None
    dynamic = subprocess.run(["readelf", "-d", NATIVE.origin], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    assert needed
    allowed = r"(libgomp|libstdc\+\+|libgcc_s|libc|libm|libpthread|ld-linux[\w-]*)\.so\.\d+"
    assert [name for name in needed if not re.fullmatch(allowed, name)] == []
    assert re.search(r"\((RPATH|RUNPATH)\)", dynamic) is None


def test_the_build_asks_for_no_torch() -> None:
    requires = PYPROJECT["build-system"]["requires"]
    assert [requirement.partition(">=")[0] for requirement in requires] == ["scikit-build-core", "nanobind"]
    assert "torch" not in re.sub(r"#.*|\".*\"", "", (ROOT / "CMakeLists.txt").read_text())


def test_no_flag_lets_the_compiler_change_the_arithmetic() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    assert "-ffp-contract=off" in text
    assert re.search(r"fast-math|-Ofast|unsafe|finite-math|associative|INTERPROCEDURAL", text) is None


def test_compiled_modules_are_neither_committed_nor_shipped_as_source() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    excluded = PYPROJECT["tool"]["scikit-build"]["sdist"]["exclude"]
    for pattern in ("/src/throughtime/_native.*.so", "/src/throughtime/_native.*.pyd"):
        assert pattern in ignored
        assert pattern in excluded


@pytest.mark.slow
def test_a_wheel_made_without_a_compiler_says_so_and_runs(tmp_path: Path) -> None:
    """Reads pip's index, for what builds the wheel."""
    source, wheels, tools = tmp_path / "source", tmp_path / "wheels", tmp_path / "tools"
    skipped = shutil.ignore_patterns(".*", "runs", "build", "dist", "__pycache__", "_native.*.so", "_native.*.pyd")
    shutil.copytree(ROOT, source, ignore=skipped)
    tools.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CC", "CXXFLAGS")}
    environment |= {"PATH": str(tools), "PYTHONPATH": ""}
    pip = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--wheel-dir", str(wheels), str(source)]
    made = subprocess.run(pip, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=500)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    assert "Native kernels: none, no C++ compiler that works" in made.stdout + made.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert not [name for name in names if re.search(r"\.(so|pyd|pth)$", name)]
    for name in ("py.typed", "templates/report.html", "data/shipped/co2.csv.gz"):
        assert f"throughtime/{name}" in names
    assert {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    run = "import torch, throughtime as tt; print(tt.__file__, tt.LSTM(2, 3)(torch.ones(4, 1, 2))[0].shape)"
    environment["PYTHONPATH"] = str(tmp_path / "installed")
    said = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(str(tmp_path / "installed"))
    assert "torch.Size([4, 1, 3])" in said.stdout
