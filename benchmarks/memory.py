"""Peak memory of one training step beyond x, y and dy, in a fresh process (Linux).

    python benchmarks/memory.py GRU 128,64,128,256 states     bytes of throughtime with memory="states"
    python benchmarks/memory.py GRU 128,64,128,256 torch      bytes of torch.nn

Counted: everything that the step adds to the resident memory, gradients of the weights included. A step of two time
steps goes first, so that what a library allocates once (code, thread stacks, plans) is not counted.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

from jobs import Job
from peers import TorchPeer

GRAIN = 1 << 18  # bytes; the kernel counts pages in batches, one a processor: what lies below is noise


def resident(name: str) -> int:
    """VmHWM (the highest so far) or VmRSS (now), bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def step_bytes(who: str, job: Job, threads: int) -> int:
    peer = TorchPeer(threads)
    layer, data = peer.layer(who, job, "float32")
    x, dy = data["x"], data["dy"]
    layer(x[:2])[0].backward(dy[:2])
    layer.zero_grad(set_to_none=True)
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free already would hide what the step takes
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far becomes what there is now
    before = resident("VmRSS")
    layer(x)[0].backward(dy)
    return max(0, resident("VmHWM") - before - dy.nbytes)  # y is as large as dy, which was there before


def measured(who: str, job: Job, threads: int) -> int:
    """The bytes of one fresh process: they vary by a few per cent, and importing torch takes most of the time."""
    command = [sys.executable, __file__, job.kind, job.shape, who, str(threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"memory of {job}, {who}, cannot be measured:\n{run.stderr}")
    return int(run.stdout)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    kind, shape, name, *rest = sys.argv[1:]
    print(step_bytes(name, Job(kind, *map(int, shape.split(","))), int(rest[0]) if rest else 2))
