"""A training goes on exactly, to the last bit, wherever it was stopped and under whatever it was trained with."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from train_case import network, sgd, text, weights

import throughtime as tt
from throughtime import runs
from throughtime.training import cosine, train


def setting(kind: str, net: torch.nn.Module) -> dict:
    """The arguments of a training of each kind, made anew as a second program would."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    common = {"optimizer": optimizer, "updates": 23, "clip": 0.2, "probe_every": 3}
    if kind == "window longer than its period":
        return {**common, "credit": tt.BPTT(h=7, every=3)}
    if kind == "kept activations":
        return {**common, "credit": tt.BPTT(h=7, every=3, replay=False)}
    if kind == "epochwise":
        return {**common, "credit": tt.BPTT()}
    if kind == "default optimiser":
        return {**common, "optimizer": None}
    if kind == "scheduler":
        return {**common, "schedule": torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)}
    if kind == "cosine":
        return {**common, "schedule": cosine}
    if kind == "validation":
        return {**common, "validation": text().chunks(1, 9, "validation"), "validate_every": 2, "patience": 50}
    raise AssertionError(kind)


KINDS = (
    "window longer than its period",
    "kept activations",
    "epochwise",
    "default optimiser",
    "scheduler",
    "cosine",
    "validation",
)


@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_bitwise_exact_wherever_it_was_stopped(kind, tmp_path):
    def fresh() -> tuple[torch.nn.Module, dict]:
        torch.manual_seed(3)
        net = network("lstm", layers=2, dropout=0.3)
        return net, setting(kind, net)

    chunks = text().chunks(3, 5)
    net, options = fresh()
    whole = list(train(net, chunks, **options))
    for stop in (1, 8, 22):
        folder = tmp_path / str(stop)
        part, options = fresh()
        records = train(part, chunks, run=folder, **options)
        first = list(islice(records, stop))
        records.close()
        torch.manual_seed(99)
        again, options = fresh()
        torch.rand(7)
        rest = list(train(again, chunks, run=folder, resume=True, **options))
        assert torch.equal(weights(again), weights(net))
        for one, other in zip([*first, *rest], whole, strict=True):
            assert replace(one, seconds=0) == replace(other, seconds=0)
        logged = runs.load(folder).records()
        assert [record["update"] for record in logged] == [record.update for record in whole]
        assert [record["loss"] for record in logged] == [record.loss for record in whole]


def test_resume_after_an_abort_inside_an_update_is_exact(tmp_path, monkeypatch):
    chunks = text().chunks(3, 5)

    def fresh() -> torch.nn.Module:
        return network("lstm", layers=2, dropout=0.5)

    net = fresh()
    list(train(net, chunks, updates=12))
    part = fresh()
    settle, calls = tt.BPTT._settle, iter(range(99))

    def aborted(*arguments):
        found = settle(*arguments)  # random numbers for dropout are drawn
        if next(calls) == 6:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(tt.BPTT, "_settle", aborted)
    with pytest.raises(KeyboardInterrupt):
        list(train(part, chunks, updates=12, run=tmp_path / "run"))
    monkeypatch.undo()
    again = fresh()
    list(train(again, chunks, updates=12, run=tmp_path / "run", resume=True))
    assert torch.equal(weights(again), weights(net))


def test_an_abort_inside_the_optimiser_keeps_the_last_save(tmp_path):
    class Halting(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            self.calls += 1
            if self.calls == 4:
                next(iter(self.param_groups[0]["params"])).data.add_(1)
                raise KeyboardInterrupt
            return super().step(closure)

    net = network()
    first = weights(net)
    with pytest.raises(KeyboardInterrupt):
        list(train(net, text().chunks(3, 5), optimizer=Halting(net.parameters(), lr=0.1), run=tmp_path / "run"))
    assert torch.equal(weights(runs.load(tmp_path / "run").net), first)


def test_a_resumed_run_may_get_larger_limits(tmp_path):
    chunks = text().chunks(3, 5)
    net = network()
    list(train(net, chunks, updates=9))
    part = network()
    list(train(part, chunks, updates=4, run=tmp_path / "run"))
    again = network(seed=5)
    list(train(again, chunks, updates=9, run=tmp_path / "run", resume=True))
    assert torch.equal(weights(again), weights(net))
    assert runs.load(tmp_path / "run").config["training"]["updates"] == 9
    assert list(train(network(), chunks, updates=9, run=tmp_path / "run", resume=True)) == []


def test_the_learning_rate_of_a_progress_schedule_stretches_over_new_limits(tmp_path):
    chunks = text().chunks(3, 5)
    part = network()
    list(train(part, chunks, updates=4, schedule=cosine, run=tmp_path / "run"))
    records = list(train(part, chunks, updates=8, schedule=cosine, run=tmp_path / "run", resume=True))
    assert [record.rate for record in records] == pytest.approx([2e-3 * cosine(n / 8) for n in range(4, 8)])


def test_resuming_takes_the_optimiser_as_it_was_saved(tmp_path):
    chunks = text().chunks(3, 5)
    for schedule in (None, cosine):
        net = network()
        folder = tmp_path / str(schedule is None)
        options = {"updates": 8, "schedule": schedule, "run": folder}
        records = train(net, chunks, optimizer=sgd(net, 0.1, momentum=0.9), **options)
        first = next(records).rate
        records.close()
        rest = list(train(net, chunks, optimizer=sgd(net, 7.0), resume=True, **options))
        wanted = [0.1 * (1 if schedule is None else cosine(n / 8)) for n in range(8)]
        assert [first, *(record.rate for record in rest)] == pytest.approx(wanted)


def test_a_run_goes_on_only_under_what_it_was_saved_with(tmp_path) -> None:
    corpus = text()
    chunks = corpus.chunks(2, 7)
    list(train(network(), chunks, credit="bptt:h=4,every=4", updates=2, run=tmp_path / "run"))
    for sentence, source, options in (
        ("credit must be as", chunks, {"credit": "bptt:h=20,every=2"}),
        ("streams must be as", corpus.chunks(3, 7), {"credit": "bptt:h=4,every=4"}),
    ):
        with pytest.raises(ValueError, match=sentence):
            train(network(), source, updates=4, run=tmp_path / "run", resume=True, **options)
