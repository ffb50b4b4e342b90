"""Two commands on a fresh machine: install throughtime in .venv and run its demo, or run every check."""

import configparser
import hashlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

if sys.version_info < (3, 11):  # noqa: UP036  (down to Python 3.6 this file parses and gets here)
    got = sys.version.split()[0]
    print(f"Python must be 3.11 or newer; got {got}. Run this file with a newer one.", file=sys.stderr)
    sys.exit(2)

TORCH = "2.13.0"
OLDEST_TORCH = (2, 6)
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "throughtime.stamp"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
SITE = "Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"
SEE_VENV = "import sys; print('venv', sys.prefix != sys.base_prefix, *sys.version_info[:2])"
SEE_PIP = "import importlib.metadata, pip; importlib.metadata.version('pip')"
SEE_TORCH = "import importlib.metadata as m, torch; print('torch', m.version('torch'), torch.__path__[0])"


def main(arguments: list[str]) -> int:
    if arguments in (["--help"], ["-h"]):
        say("python3 run.py       install throughtime in .venv and run its demo")
        say("python3 run.py test  install the test tools too; run ruff, mypy, import-linter and pytest")
        return 0
    if arguments not in ([], ["test"]):
        stop(f"The argument must be test, --help or none; got {' '.join(arguments)}. See run.py --help.", 2)
    try:
        prepare("test" if arguments else "base")
        return check() if arguments else demo()
    except KeyboardInterrupt:
        stop("\nStopped. Give the same command again.", 130)
    except (OSError, configparser.Error) as error:
        stop(f"The machine refused: {error}. Mend that, then run the same command again.")


def prepare(extra: str) -> None:
    """Install what `extra` ("base" or "test") asks for, unless the stamp says that it is there."""
    if ready(extra):
        return
    outside = torch_folder(sys.executable)
    make_venv(system_site=outside is not None and sys.prefix == sys.base_prefix)
    STAMP.unlink(missing_ok=True)
    forget_half_installed()
    install_pip()
    install_torch(outside)
    what, target = ("throughtime and its test tools", ".[test]") if extra == "test" else ("throughtime", ".")
    said = install(what, "--verbose", "--editable", target)
    say((re.search("Native kernels: .*", said) or ["Native kernels: pip does not say"])[0])
    STAMP.write_text(f"{fingerprint()} {extra}\n")


def fingerprint() -> str:
    """A hash of what an installation rests on: the files it is built from, a compiler, the Python, this folder."""
    patterns = ("pyproject.toml", "CMakeLists.txt", "csrc/**/*")
    files = [path for pattern in patterns for path in sorted(ROOT.glob(pattern)) if path.is_file()]
    compiles = any(map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++")))
    parts = [part for path in files for part in (bytes(path.relative_to(ROOT)), path.read_bytes())]
    parts += [str(compiles).encode(), str(sys.implementation.cache_tag).encode(), bytes(ROOT)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def ready(extra: str) -> bool:
    if not (STAMP.is_file() and PYTHON.is_file()):
        return False
    of, _, installed = STAMP.read_text(errors="replace").strip().partition(" ")
    return of == fingerprint() and installed in (extra, "test")


def make_venv(*, system_site: bool) -> None:
    """Keep a .venv that works, whether made by hand or by an earlier call; make it anew otherwise."""
    seen = re.search(r"^venv True (\d+) (\d+)$", quiet(PYTHON, "-c", SEE_VENV).stdout, re.MULTILINE)
    if seen and (int(seen[1]), int(seen[2])) == sys.version_info[:2]:
        return
    if seen and not STAMP.is_file():
        needs = f"{shown(VENV)} must be of the Python that runs this file; got {seen[1]}.{seen[2]}"
        stop(f"{needs}. Run {shown(PYTHON)} run.py, or delete that folder.")
    if importlib.util.find_spec("venv") is None:
        stop("This Python has no module venv. Install it (Debian: apt install python3-venv), then run again.")
    say(f"{'Remaking' if VENV.exists() else 'Making'} {shown(VENV)} with Python {sys.version.split()[0]}")
    options = ["--without-pip", "--clear", *["--system-site-packages"] * system_site]
    made = quiet(sys.executable, "-m", "venv", *options, VENV)
    if made.returncode:
        fail(f"Making {shown(VENV)}", made.stdout)


def forget_half_installed() -> None:
    """Let pip lay anew what an interruption cut off: of a package's files INSTALLER is among the last."""
    for metadata in VENV.glob(f"{SITE}/*.dist-info"):
        if not (metadata / "INSTALLER").is_file():
            shutil.rmtree(metadata)


def install_pip() -> None:
    """Bring pip into .venv in the first way that this machine offers."""
    if quiet(PYTHON, "-c", SEE_PIP).returncode == 0:
        return
    say(f"Installing pip in {shown(VENV)}")
    said = ""
    for command in ways_to_pip():
        said = quiet(*command).stdout
        if quiet(PYTHON, "-c", SEE_PIP).returncode == 0:
            return
    ways = "Install it (Debian: apt install python3-venv), or set PIP_INDEX_URL to a package index"
    fail("Installing pip", said, f"{ways}, or PIP_FIND_LINKS to a folder with a pip wheel; then run again.")


def ways_to_pip() -> Iterator[list[str | Path]]:
    yield [PYTHON, "-m", "ensurepip", "--default-pip"]
    yield [sys.executable, "-m", "pip", "--python", PYTHON, "install", "pip"]
    for name in filter(shutil.which, ("pip3", "pip")):
        yield [name, "--python", PYTHON, "install", "pip"]
    if shutil.which("uv"):
        yield ["uv", "pip", "install", "--python", PYTHON, "pip"]
    for folder in ["/usr/share/python-wheels", *pip_settings("find-links")]:
        for wheel in sorted(Path(folder.removeprefix("file://")).glob("pip-*.whl"), reverse=True):
            yield [PYTHON, wheel / "pip", "install", "--no-index", wheel]
    for wheel in filter(None, map(fetch_pip, pip_settings("index-url"))):
        yield [PYTHON, wheel / "pip", "install", "--no-index", wheel]


def pip_settings(name: str) -> list[str]:
    """What the environment and pip's configuration files say of `name`, the environment's word first."""
    named = os.environ.get("PIP_CONFIG_FILE", "")
    files = ["/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf", named]
    parser = configparser.RawConfigParser(strict=False)
    parser.read(map(os.path.expanduser, files if named != os.devnull else []), encoding="utf-8")
    values = [os.environ.get("PIP_" + name.replace("-", "_").upper(), "")]
    values += [parser.get(section, name, fallback="") for section in ("install", "global")]
    return " ".join(values).split()


def fetch_pip(index: str) -> Path | None:
    """Lay the newest pip wheel of a package index in .venv; None when the index gives none."""
    page = index.rstrip("/") + "/pip/"
    try:
        with urllib.request.urlopen(page, timeout=30) as answer:
            links = re.findall(r'"([^"]*\bpip-([\d.]+)-py3-none-any\.whl[^"]*)"', answer.read().decode())
        link, version = max(links, key=lambda pair: [int(part) for part in pair[1].split(".")])
        address, mark = urllib.parse.urldefrag(urllib.parse.urljoin(page, link))
        with urllib.request.urlopen(address, timeout=30) as answer:
            content = answer.read()
    except (OSError, ValueError, http.client.HTTPException):
        say("The package index of pip's settings cannot be reached or has no pip")
        return None
    if mark.startswith("sha256=") and mark != "sha256=" + hashlib.sha256(content).hexdigest():
        return None
    wheel = VENV / f"pip-{version}-py3-none-any.whl"
    wheel.write_bytes(content)
    return wheel


def torch_folder(python: str | Path) -> str | None:
    """The folder from which `python` imports a torch that is new enough, or None."""
    seen = re.search(r"^torch (\d+)\.(\d+)\S* (.+)$", quiet(python, "-c", SEE_TORCH).stdout, re.MULTILINE)
    return os.path.dirname(seen[3]) if seen and (int(seen[1]), int(seen[2])) >= OLDEST_TORCH else None


def install_torch(outside: str | None) -> None:
    """Take the torch of .venv, else that of the Python that runs this file, else the pinned one."""
    if outside and not torch_folder(PYTHON):
        for site in VENV.glob(SITE):
            (site / "torch_outside.pth").write_text(outside + "\n")
    if torch_folder(PYTHON):
        return say("torch is there already")
    if sys.platform == "linux":
        say(f"Asking pip which build of torch {TORCH} it would fetch")
        packages = cuda_packages(dry_run())
        if packages:
            say(cuda_notice(len(packages)))
    install("torch", f"torch=={TORCH}")


def dry_run() -> dict[str, Any]:
    """pip's report on what installing torch would fetch; {} when pip cannot say."""
    pip("install", "--retries", "1", "--upgrade", "pip")  # an older pip fetches all wheels in a dry run too
    report = VENV / "torch.json"
    ask = ["install", "--retries", "1", "--dry-run", "--report", str(report), f"torch=={TORCH}"]
    for options in (["--use-feature=fast-deps"], []):  # metadata without the wheel, where pip knows how
        if pip(*ask, *options).returncode == 0:
            return dict(json.loads(report.read_text(encoding="utf-8")))
    return {}


def cuda_packages(report: dict[str, Any]) -> list[str]:
    """The packages in pip's report that only a GPU build of torch needs."""
    names = [package["metadata"]["name"].lower().replace("_", "-") for package in report.get("install", [])]
    return [name for name in names if name.startswith(("nvidia-", "cuda-", "triton", "pytorch-triton"))]


def cuda_notice(count: int) -> str:
    return f"""\
Note: pip fetches torch's CUDA build and {count} packages for it, about 3 gigabytes. The CPU build is some 200
megabytes. To have that one press Ctrl-C and type, with the address that PyTorch's install page gives for CPU,
    {shown(PYTHON)} -m pip install torch=={TORCH} --index-url ADDRESS
    python3 run.py"""


def install(what: str, *requirements: str) -> str:
    """Install, and return all that pip said."""
    say(f"Installing {what} (minutes on a first call)")
    result = pip("install", *requirements)
    if result.returncode:
        fail(f"Installing {what}", result.stdout)
    return result.stdout


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return quiet(PYTHON, "-m", "pip", *arguments)


def demo() -> int:
    say("Running throughtime demo (about two minutes)")
    program, run = PYTHON.with_name("throughtime"), ROOT / "runs/demo"
    if loud(program, "demo"):
        stop("throughtime demo failed. Its last lines say why.")
    say(f"\nOpen {shown(run / 'report.html')} in a browser, and try next:")
    for command in (f"sample {shown(run)} --prompt 'To be'", "train --text machine --split none", "verify"):
        say(f"    {shown(program)} {command}")
    return 0


def check() -> int:
    """Run every check, also after one has failed, and close with a line for each."""
    lint_imports = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    tools = {
        "ruff": ["-m", "ruff", "check", "--output-format", "concise"],
        "mypy": ["-m", "mypy"],
        "import-linter": ["-c", lint_imports, "--no-logo"],
        "pytest": ["-m", "pytest", "-n", "2"],
    }
    verdicts, failed = "", False
    for name, command in tools.items():
        say(f"\nRunning {name}")
        start = time.monotonic()
        code = loud(PYTHON, *command)
        failed |= code != 0
        verdict = f"failed with exit code {code}" if code else "passed"
        verdicts += f"\n{name:14}{verdict} after {time.monotonic() - start:.0f} s"
    say(verdicts)
    return int(failed)


def quiet(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command unseen; stdout holds all that it said, and one that cannot start has exit code 127."""
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PIP_USER": "0"}
    how: dict[str, Any] = {"cwd": ROOT, "env": environment, "encoding": "utf-8", "errors": "replace"}
    how |= {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        return subprocess.run(command, **how)
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, str(error))


def loud(*command: str | Path) -> int:
    """Run a command in the user's sight; after Ctrl-C it may end in its own way."""
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def shown(path: Path) -> str:
    return os.path.relpath(path) if Path.cwd().anchor == path.anchor else str(path)


def say(line: str) -> None:
    print(line, flush=True)


def fail(step: str, output: str, advice: str = "Mend that, then run the same command again.") -> NoReturn:
    """Stop with the step, the last lines of what its tool said, and what to do."""
    if "CMake build failed" in output:
        advice = f"{advice} Or go without native kernels: set SKBUILD_CMAKE_DEFINE=THROUGHTIME_NATIVE=OFF."
    elif re.search(r"timed out|[Cc]onnection|name resolution|unreachable|ProxyError|SSLError", output):
        advice = f"The network may be the cause: see `{shown(PYTHON)} -m pip config list`. {advice}"
    errors = re.findall(r"^ERROR.*|.*: (?:fatal )?error: .*", output, re.MULTILINE) or output.strip().splitlines()
    stop("\n".join([f"{step} failed:", *errors[-4:], advice]))


def stop(sentence: str, code: int = 1) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
