"""How fast is it? The twins beside torch.nn, JAX and onnxruntime, one after another in one run (Linux).

    python benchmarks/speed.py --json speed.json            everything; about 15 minutes on two cores
    python benchmarks/speed.py layers --only GRU --peers torch
    python benchmarks/speed.py --quick                      an eighth of the steps, once: does it run? Quote nothing

Sections: layers    training step and forward alone, 7 shapes, every peer, both settings of the allocator
          unequal   rows of unequal length beside torch's packed sequences, and beside the cost of their steps
          sizes     sizes that no vector width divides, beside torch.nn
          memory    peak memory of a training step, and what rebuilding the gates costs in time
          import    seconds of `import throughtime; throughtime.LSTM` beyond torch

A training step is `layer.zero_grad(set_to_none=True); layer(x)[0].sum().backward()`, float32; x wants no gradient.
Before any speed, outputs and gradients are held to torch in float64: where one is red, nothing is timed (exit 1).
Each library has a process of its own that sleeps while another is timed, all on the same cores, with real-time
priority where the system grants it. A time is the shortest step of two rounds; a cell's peers are timed within
seconds of each other, because a shared machine changes within minutes. `tables.py` prints a JSON again as Markdown,
`pictures.py` draws it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tables
from jobs import GATES, MODES, WEIGHTS, Job, chosen, main_jobs, off_grid_jobs
from memory import measured
from peers import ALLOCATORS, PEERS, Worker, missing

SECTIONS = ("layers", "unequal", "sizes", "memory", "import")
POLICIES = ("gates", "states")
ROUNDINGS = 2e-6  # some thirty roundings of float32: below it, being better than torch is luck
FOREIGN = 1e-4  # other libraries round in their own ways; a swapped gate is off by more than 1e-2


@dataclass
class Bench:
    """The processes that are timed, and for how long."""

    workers: dict[tuple[str, str], Worker]
    allocators: list[str]
    peers: list[str]
    quick: bool
    seconds: float
    rounds: int
    least: int
    threads: int
    start: float

    def ask(self, allocator: str, who: str, method: str, *arguments: Any) -> Any:
        return self.workers[allocator, who if who in PEERS else "torch"](method, who, *arguments)

    def times(self, mode: str, calls: dict[str, tuple[str, Job]], allocator: str) -> dict[str, float]:
        """Seconds of the shortest step of each call, which is who runs it and what."""
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(self.rounds):
            for name, (who, job) in calls.items():
                took = self.ask(allocator, who, "time", job, mode, self.seconds, self.least)
                best[name] = min(best[name], took)
        return best

    def peak(self) -> float:
        """GFLOP/s of all threads now; the clock of a shared machine changes within minutes. 0 where not known."""
        return (self.workers[self.allocators[0], "torch"]("machine")["peak"] or [0.0])[-1]

    def say(self, section: str, job: Job | str) -> None:
        print(f"{time.monotonic() - self.start:5.0f} s  {section:8} {job}", file=sys.stderr, flush=True)


def relative_error(ours: np.ndarray, exact: np.ndarray) -> float:
    return float(np.abs(ours - exact).max() / np.abs(exact).max())


def errors(result: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> dict[str, float | None]:
    """The largest error of the outputs and of the weights' gradients, relative to the largest number of an array."""
    gradients = [relative_error(result[name], exact[name]) for name in WEIGHTS if name in result]
    return {"outputs": relative_error(result["y"], exact["y"]), "gradients": max(gradients, default=None)}


def parity(bench: Bench, jobs: dict[str, list[Job]]) -> list[dict[str, Any]]:
    """Everyone against torch in float64, on the same weights, data and random dy.

    Ours may err four times as much as torch does in float32, or by ROUNDINGS where torch is luckier: torch's own
    error varies so much from shape to shape, and a step, row or bias left out errs a hundred times more.
    """
    rows, first = [], bench.allocators[0]
    for job in dict.fromkeys(replace(job, unequal=section == "unequal") for section in jobs for job in jobs[section]):
        bench.say("parity", job)
        exact = bench.ask(first, "torch", "result", job, "float64")
        own = errors(bench.ask(first, "torch", "result", job, "float32"), exact)
        whos = ["throughtime", *(POLICIES if job in jobs.get("memory", ()) else ())]
        whos += [peer for peer in bench.peers if peer != "torch" and job in jobs.get("layers", ())]
        for who in whos:
            found = errors(bench.ask(first, who, "result", job, "float32"), exact)
            bounds = {name: FOREIGN if who in PEERS else max(4 * own[name], ROUNDINGS) for name in own}
            green = all(found[name] is None or found[name] <= bounds[name] for name in found)  # NaN is red
            rows.append({**asdict(job), "who": who, **found, "torch": own, "bounds": bounds, "green": green})
    return rows


def layers(bench: Bench, jobs: list[Job]) -> list[dict[str, Any]]:
    rows = []
    for job in jobs:
        bench.say("layers", job)
        why = bench.workers[bench.allocators[0], "torch"]("why", job)
        for mode in MODES:
            for allocator in bench.allocators:
                whos = ["throughtime", *(peer for peer in bench.peers if mode == "forward" or peer != "onnxruntime")]
                before = bench.peak()
                seconds = bench.times(mode, {who: (who, job) for who in whos}, allocator)
                peak = max(before, bench.peak())
                row = {"mode": mode, "allocator": allocator, "seconds": seconds, "peak": peak, "why": why}
                rows.append(asdict(job) | row)
    return rows


def unequal(bench: Bench, jobs: list[Job]) -> list[dict[str, Any]]:
    rows = []
    for job in jobs:
        bench.say("unequal", job)
        short = replace(job, unequal=True)
        calls = {"throughtime": ("throughtime", short), "torch": ("torch", short), "full": ("throughtime", job)}
        seconds = bench.times("training", calls, bench.allocators[0])
        rows.append({**asdict(short), "share": short.share(), "seconds": seconds})
    return rows


def sizes(bench: Bench, jobs: list[Job]) -> list[dict[str, Any]]:
    rows = []
    for job in jobs:
        bench.say("sizes", job)
        for mode in MODES:
            calls = {who: (who, job) for who in ("throughtime", "torch")}
            rows.append({**asdict(job), "mode": mode, "seconds": bench.times(mode, calls, bench.allocators[0])})
    return rows


def memory(bench: Bench, jobs: list[Job]) -> list[dict[str, Any]]:
    rows = []
    for job in jobs:
        bench.say("memory", job)
        whos = ("torch", *POLICIES)
        taken = {who: measured(who, job, bench.threads) for who in whos}
        seconds = bench.times("training", {who: (who, job) for who in whos}, bench.allocators[0])
        rows.append({**asdict(job), "bytes": taken, "seconds": seconds})
    return rows


def import_seconds(times: int = 7) -> float:
    """The shortest of some fresh processes, until a layer is there: the public names are fetched when first used."""
    import_it = "start = time.perf_counter(); import throughtime; throughtime.LSTM; print(time.perf_counter() - start)"
    code = f"import torch, time; {import_it}"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(times)]
    return min(float(run.stdout) for run in runs)


def processors(count: int) -> list[int]:
    """As many processors as threads, no two of one core where that can be known."""
    cores: dict[str, int] = {}
    for number in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores.setdefault(siblings.read_text() if siblings.exists() else str(number), number)
    return list(cores.values())[:count]


def real_time(wanted: bool) -> str:
    """Take real-time priority, as `chrt -r 1` gives it, for this process and all that it starts."""
    if not wanted:
        return "usual priority, as asked"
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return "usual priority: real-time was refused, so whatever else runs is in these times"
    return "real-time priority"


def git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def machine(options: argparse.Namespace, priority: str) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    packages = dict.fromkeys(["torch", *options.peers])
    versions = {package: metadata.version(package) for package in packages}
    return {
        "processor": name,
        "processors": os.cpu_count(),
        "threads": options.threads,
        "priority": priority,
        "versions": versions | {"python": platform.python_version()},
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "commit": (git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if git("status", "-s") else ""),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "quick": options.quick,
    }


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    parser.add_argument("--only", action="append", default=[], metavar="KIND|SHAPE", help="GRU or 128,32,64,128")
    parser.add_argument("--peers", default="torch,jax,onnxruntime", help="who is timed; parity always asks torch")
    parser.add_argument("--allocator", choices=("both", *ALLOCATORS), default="both", help="kept: keeps its pages")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.3, help="of repetitions, at least three, a round and cell")
    parser.add_argument("--quick", action="store_true", help="an eighth of the steps, once; quote nothing")
    parser.add_argument("--real-time", action=argparse.BooleanOptionalAction, default=True, help="as chrt -r 1")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.peers = options.peers.split(",")
    for name, values, known in (("SECTION", options.sections, SECTIONS), ("--peers", options.peers, tuple(PEERS))):
        for value in values:
            if value not in known:
                parser.error(f"{name} must be of {', '.join(known)}; got {value!r}.")
    shapes = {job.shape for job in main_jobs() + off_grid_jobs()}
    for word in options.only:
        if word not in GATES and word not in shapes:
            known = " ".join([*GATES, *sorted(shapes)])
            parser.error(f"--only must be a kind or a shape, one of {known}; got {word!r}.")
    if not 1 <= options.threads <= len(processors(options.threads)):
        parser.error(f"--threads must be 1 to the number of cores, {len(processors(1 << 20))}; got {options.threads}.")
    options.sections = options.sections or list(SECTIONS)
    return options


def jobs_of(section: str, options: argparse.Namespace) -> list[Job]:
    jobs = {"sizes": off_grid_jobs(), "import": []}.get(section, main_jobs())
    jobs = chosen(jobs, options.only)
    return [replace(job, T=job.T // 8) for job in jobs] if options.quick else jobs


def started(options: argparse.Namespace) -> Bench:
    allocators = list(ALLOCATORS) if options.allocator == "both" else [options.allocator]
    if options.quick:
        allocators, options.seconds = allocators[:1], 0.02
    for peer in list(options.peers):
        if missing(peer):
            print(f"{peer} is left out: {', '.join(missing(peer))} is not installed")
            options.peers.remove(peer)
    os.sched_setaffinity(0, processors(options.threads))  # every pool of threads, JAX's too, takes its size from it
    needed = dict.fromkeys(["torch", *(options.peers if "layers" in options.sections else [])])
    pairs = itertools.product(allocators, needed)
    return Bench(
        workers={(allocator, peer): Worker(peer, options.threads, allocator) for allocator, peer in pairs},
        allocators=allocators,
        peers=options.peers,
        quick=options.quick,
        seconds=options.seconds,
        rounds=1 if options.quick else 2,
        least=1 if options.quick else 3,
        threads=options.threads,
        start=time.monotonic(),
    )


def save(results: dict[str, Any], file: Path | None) -> None:
    if file:
        file.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    options = asked()
    priority = real_time(options.real_time)
    bench = started(options)
    torch_worker = bench.workers[bench.allocators[0], "torch"]
    results: dict[str, Any] = {"machine": machine(options, priority), "before": torch_worker("machine")}
    jobs = {section: jobs_of(section, options) for section in options.sections}
    results["parity"] = parity(bench, jobs)
    print("\n".join(tables.machine(results) + tables.parity(results)), flush=True)
    if not all(row["green"] for row in results["parity"]):
        sys.exit("parity is red: no speed is printed")
    measures = {"layers": layers, "unequal": unequal, "sizes": sizes, "memory": memory}
    for section in options.sections:
        results[section] = import_seconds() if section == "import" else measures[section](bench, jobs[section])
        print("\n".join(tables.SECTIONS[section](results)), flush=True)
        save(results, options.json)
    results["after"] = torch_worker("machine")
    print("\n".join(tables.after(results) + tables.summary(results)))
    save(results, options.json)


if __name__ == "__main__":
    main()
