"""Whom we are measured against: each library in a process of its own that sleeps while another is timed.

A process holds torch and throughtime (a twin is used as a layer of torch), one JAX, one onnxruntime. Each answers to
`machine`, `result` (outputs and gradients of the weights, for parity) and `time` (seconds of the shortest step).
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from jobs import WEIGHTS, Job

ALLOCATORS = {
    "default": {},
    # glibc keeps what is freed: no page is given back and fetched again, in torch's steps or in ours.
    "kept": {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"},
}
BURST, REST = 0.2, 0.05  # under real-time priority the kernel stops who runs for 0.95 s of a second


def shortest(step: Callable[[], Any], seconds: float, least: int) -> float:
    """The shortest of at least `least` steps, repeated for about so many seconds."""
    start = time.perf_counter()
    step()  # plans, caches, compiled code
    if time.perf_counter() - start < BURST:
        step()
    gc.collect()
    best, spent, burst, count = math.inf, 0.0, 0.0, 0
    while count < least or spent < seconds:
        start = time.perf_counter()
        step()
        took = time.perf_counter() - start
        best, spent, burst, count = min(best, took), spent + took, burst + took, count + 1
        if burst > BURST:
            time.sleep(REST)
            burst = 0.0
    time.sleep(REST)  # threads that spin for more work fall asleep before another peer is timed
    return best


class TorchPeer:
    """torch.nn and the twins: `torch`, `throughtime`, and with a named policy of memory `gates` and `states`."""

    def __init__(self, threads: int) -> None:
        self.torch = importlib.import_module("torch")
        self.twins = importlib.import_module("throughtime")
        self.torch.set_num_threads(threads)
        self.threads = threads

    def machine(self) -> dict[str, Any]:
        """What this machine can do; null where there is no native part to measure it with."""
        try:
            native = importlib.import_module("throughtime._native")
        except ImportError:
            return {"instruction_set": None, "peak": None, "latency": None}
        peak = [max(native.peak(count) for _ in range(3)) for count in range(1, self.threads + 1)]
        latency = native.latency() if self.threads > 1 else 0.0  # two threads that wait for each other need two cores
        return {"instruction_set": native.instruction_set(), "peak": peak, "latency": latency}

    def layer(self, who: str, job: Job, dtype: str) -> tuple[Any, dict[str, Any]]:
        """A layer with the job's weights, and the job's data as tensors."""
        data = {name: self.torch.from_numpy(array).to(getattr(self.torch, dtype)) for name, array in job.data().items()}
        source = self.torch.nn if who == "torch" else self.twins
        options = {"memory": who} if who in ("gates", "states") else {}
        layer = getattr(source, job.kind)(job.I, job.H, dtype=getattr(self.torch, dtype), **options)
        with self.torch.no_grad():
            for name in WEIGHTS:
                getattr(layer, name).copy_(data[name])
        return layer, data

    def outputs(self, who: str, job: Job, layer: Any, x: Any) -> Callable[[], Any]:
        """The call that is timed; unequal rows go to torch.nn as packed sequences, made and unmade in the step."""
        if not job.unequal:
            return lambda: layer(x)[0]
        lengths = self.torch.from_numpy(job.lengths())
        if who != "torch":
            return lambda: layer(x, lengths=lengths)[0]
        rnn = self.torch.nn.utils.rnn

        def packed() -> Any:
            y, _ = layer(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
            return rnn.pad_packed_sequence(y, total_length=job.T)[0]

        return packed

    def result(self, who: str, job: Job, dtype: str) -> dict[str, np.ndarray]:
        layer, data = self.layer(who, job, dtype)
        y = self.outputs(who, job, layer, data["x"])()
        y.backward(data["dy"])
        return {"y": y.detach().numpy()} | {name: getattr(layer, name).grad.numpy() for name in WEIGHTS}

    def time(self, who: str, job: Job, mode: str, seconds: float, least: int) -> float:
        layer, data = self.layer(who, job, "float32")
        call = self.outputs(who, job, layer, data["x"])

        def train() -> None:
            layer.zero_grad(set_to_none=True)
            call().sum().backward()

        if mode == "training":
            return shortest(train, seconds, least)
        with self.torch.no_grad():
            return shortest(call, seconds, least)

    def why(self, job: Job) -> str:
        return self.twins.kernels.why(self.layer("throughtime", job, "float32")[0])


class JaxPeer:
    """jax.lax.scan under jit, the same mathematics and weights: u of all steps by one product, v inside the scan."""

    def __init__(self, threads: int) -> None:
        os.environ["JAX_PLATFORMS"] = "cpu"
        os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=true intra_op_parallelism_threads={threads}"
        self.jax = importlib.import_module("jax")
        self.compiled = lru_cache(maxsize=4)(self.compile)

    def outputs(self, kind: str, weights: dict[str, Any], x: Any) -> Any:
        numpy, nn = self.jax.numpy, self.jax.nn
        W_x, W_h, b_x, b_h = (weights[name] for name in WEIGHTS)

        def elman(state, u):
            h = numpy.tanh(u + state @ W_h.T + b_h)
            return h, h

        def gru(h, u):
            u_r, u_z, u_n = numpy.split(u, 3, axis=-1)
            v_r, v_z, v_n = numpy.split(h @ W_h.T + b_h, 3, axis=-1)
            r, z = nn.sigmoid(u_r + v_r), nn.sigmoid(u_z + v_z)
            n = numpy.tanh(u_n + r * v_n)
            h = (1 - z) * n + z * h
            return h, h

        def lstm(state, u):
            h, c = state
            i, f, g, o = numpy.split(u + h @ W_h.T + b_h, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * numpy.tanh(g)
            h = nn.sigmoid(o) * numpy.tanh(c)
            return (h, c), h

        zeros = numpy.zeros((x.shape[1], W_h.shape[1]), x.dtype)
        start = (zeros, zeros) if kind == "LSTM" else zeros
        return self.jax.lax.scan({"RNN": elman, "GRU": gru, "LSTM": lstm}[kind], start, x @ W_x.T + b_x)[1]

    def compile(self, job: Job, mode: str) -> Callable[[], Any]:
        data = {name: self.jax.device_put(array) for name, array in job.data().items() if name != "dy"}
        x, weights = data.pop("x"), data
        if mode == "forward":
            call = self.jax.jit(lambda weights, x: self.outputs(job.kind, weights, x))
        else:
            call = self.jax.jit(self.jax.value_and_grad(lambda weights, x: self.outputs(job.kind, weights, x).sum()))
        return lambda: self.jax.block_until_ready(call(weights, x))

    def result(self, who: str, job: Job, dtype: str) -> dict[str, np.ndarray]:
        data = job.data()
        x, dy = data.pop("x"), data.pop("dy")
        y, back = self.jax.vjp(self.jax.jit(lambda weights: self.outputs(job.kind, weights, x)), data)
        return {"y": np.asarray(y)} | {name: np.asarray(grad) for name, grad in back(dy)[0].items()}

    def time(self, who: str, job: Job, mode: str, seconds: float, least: int) -> float:
        return shortest(self.compiled(job, mode), seconds, least)


class OnnxPeer:
    """onnxruntime, which has no gradients: the ONNX node of the same name, its gates in ONNX's order."""

    ORDER = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}  # noqa: RUF012

    def __init__(self, threads: int) -> None:
        self.onnx = importlib.import_module("onnx")
        self.runtime = importlib.import_module("onnxruntime")
        self.threads = threads

    def session(self, job: Job) -> tuple[Any, np.ndarray]:
        helper, real = self.onnx.helper, self.onnx.TensorProto.FLOAT
        data = job.data()

        def ordered(name: str) -> np.ndarray:
            gates = np.split(data[name], len(self.ORDER[job.kind]))
            return np.concatenate([gates[gate] for gate in self.ORDER[job.kind]])

        W_x, W_h, b_x, b_h = (ordered(name) for name in WEIGHTS)
        constants = {"W": W_x[None], "R": W_h[None], "B": np.concatenate([b_x, b_h])[None]}
        options = {"linear_before_reset": 1} if job.kind == "GRU" else {}
        graph = helper.make_graph(
            [helper.make_node(job.kind, ["x", *constants], ["y"], hidden_size=job.H, **options)],
            job.kind,
            [helper.make_tensor_value_info("x", real, (job.T, job.B, job.I))],
            [helper.make_tensor_value_info("y", real, (job.T, 1, job.B, job.H))],
            [self.onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        settings = self.runtime.SessionOptions()
        settings.intra_op_num_threads, settings.inter_op_num_threads = self.threads, 1
        session = self.runtime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        return session, data["x"]

    def result(self, who: str, job: Job, dtype: str) -> dict[str, np.ndarray]:
        session, x = self.session(job)
        return {"y": session.run(None, {"x": x})[0][:, 0]}

    def time(self, who: str, job: Job, mode: str, seconds: float, least: int) -> float:
        session, x = self.session(job)
        return shortest(lambda: session.run(None, {"x": x}), seconds, least)


PEERS = {"torch": TorchPeer, "jax": JaxPeer, "onnxruntime": OnnxPeer}
PACKAGES = {"torch": ("torch",), "jax": ("jax",), "onnxruntime": ("onnx", "onnxruntime")}


def missing(peer: str) -> list[str]:
    return [package for package in PACKAGES[peer] if importlib.util.find_spec(package) is None]


class Worker:
    """A library in a process of its own, under one setting of the allocator."""

    def __init__(self, peer: str, threads: int, allocator: str) -> None:
        settings = ALLOCATORS[allocator] | {"OMP_NUM_THREADS": str(threads)}
        before = dict(os.environ)
        os.environ.update(settings)  # read before any library of the new process starts
        try:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, peer, threads), daemon=True).start()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def __call__(self, method: str, *arguments: Any) -> Any:
        self.connection.send((method, arguments))
        answer = self.connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def serve(connection: Any, peer: str, threads: int) -> None:
    """Answer calls until the other end is gone; an error goes back to who asked."""
    library = PEERS[peer](threads)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send(getattr(library, method)(*arguments))
        except Exception as error:
            connection.send(error)
