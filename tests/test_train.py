"""The laws of training: sums before divisions, an honest bound, nothing taken from the caller."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parameters_to_vector
from train_case import TEXT, network, sgd, text, weights

import throughtime as tt
from throughtime import inference, loop, runs
from throughtime.chunk import Chunk
from throughtime.training import cosine, train

# The default optimiser


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_default_optimiser_is_adamw_in_one_kernel(dtype, monkeypatch):
    made = []
    adamw = torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *args, **options: made.append(adamw(*args, **options)) or made[0])
    net = network(backend="reference").to(dtype)
    list(train(net, text().chunks(3, 5), updates=2))
    (optimizer,) = made
    assert optimizer.defaults["fused"]
    assert optimizer.defaults["lr"] == 2e-3
    assert {id(weight) for weight in optimizer.param_groups[0]["params"]} == {id(weight) for weight in net.parameters()}


def test_the_default_optimiser_takes_weights_that_have_no_kernel():
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1, dtype=torch.complex64))

        def forward(self, x, state=None, reset=None):
            return (self.weight * x).real, state

    x = torch.randn(4, 2, 1)
    (record,) = train(Odd(), [Chunk(x, x + 1, end=True)], loss="squared")
    assert record.norm > 0


def test_one_kernel_or_many_learn_alike():
    vectors = []
    for fused in (True, False):
        net = network().double()
        list(train(net, text().chunks(3, 5), optimizer=torch.optim.AdamW(net.parameters(), lr=2e-3, fused=fused)))
        vectors.append(weights(net))
    net = network().double()
    list(train(net, text().chunks(3, 5)))
    assert torch.equal(weights(net), vectors[0])
    torch.testing.assert_close(*vectors, rtol=0, atol=1e-9)


# Sums, means and the bound


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 60))
def test_chunk_length_does_not_change_the_gradient(streams, steps):
    whole = text(None).chunks(streams, 10**6)
    vectors = []
    for chunks in (whole, text(None).chunks(streams, steps)):
        net = network("gru").double()
        (record,) = train(net, chunks, credit=tt.BPTT(), optimizer=sgd(net))
        assert record.targets == len(TEXT) - 1
        vectors.append(weights(net))
    assert torch.allclose(*vectors, rtol=0, atol=1e-12)


def test_an_update_is_the_sum_of_the_gradients_divided_by_the_counted_targets():
    x, y = (torch.randn(6, 3, 2, dtype=torch.float64) for _ in range(2))
    mask = (torch.rand(6, 3) < 0.5).double()
    net = tt.Network("elman", inputs=2, units=4, outputs=2).double()
    before = weights(net)
    prediction, _ = net(x)
    error = (mask[..., None] * tt.squared_error(prediction, y)).sum() / mask.sum()
    grads = torch.autograd.grad(error, list(net.parameters()))
    (record,) = train(net, [Chunk(x, y, mask, end=True)], loss="squared", optimizer=sgd(net, 0.5))
    assert torch.allclose(weights(net), before - 0.5 * parameters_to_vector(grads), atol=1e-12)
    assert record.loss == pytest.approx(error.item(), abs=1e-12)
    assert record.norm == pytest.approx(parameters_to_vector(grads).norm().item(), abs=1e-12)


def test_clip_bounds_the_norm_of_the_mean_gradient():
    for streams in (1, 4):  # the bound on a sum would depend on their number
        net = network()
        chunks = text(None).chunks(streams, 20)
        (free,) = train(net, chunks, optimizer=sgd(net, 0.0), updates=1)
        for bound, clipped in ((free.norm * 0.5, True), (free.norm * 2, False)):
            net = network()
            before = weights(net)
            (record,) = train(net, chunks, optimizer=sgd(net, 1.0), clip=bound, updates=1)
            assert record.norm == free.norm
            assert record.clipped is clipped
            step = (weights(net) - before).norm().item()
            assert step == pytest.approx(min(bound, free.norm), rel=1e-4)


def test_chunks_without_targets_that_count_make_no_update():
    x = torch.randn(2, 1, 2)
    none, one = torch.zeros(2, 1), torch.ones(2, 1)
    chunks = [Chunk(x, x, none), Chunk(x, x, one), Chunk(x, x, none), Chunk(x, x, none, end=True)]
    net = tt.Network("elman", inputs=2, units=4, outputs=2)
    records = list(train(net, chunks, loss="squared", epochs=2))
    assert [(record.update, record.epoch, record.targets) for record in records] == [(1, 0, 2.0), (2, 1, 4.0)]


# Records, validation, patience


def test_the_fields_of_a_record():
    chunks = text().chunks(3, 5)
    net = network()
    records = list(train(net, chunks, epochs=2, validation=text().chunks(1, 7, "validation")))
    assert [record.update for record in records] == list(range(1, 2 * len(chunks) + 1))
    assert [record.epoch for record in records] == [0] * len(chunks) + [1] * len(chunks)
    assert records[-1].targets == 2 * chunks.count
    assert all(one.seconds < other.seconds for one, other in pairwise(records))
    looked = [record for record in records if record.validation is not None]
    assert [record.update for record in looked] == [len(chunks), 2 * len(chunks)]
    assert looked[-1].best == min(record.validation for record in looked)
    assert looked[-1].validation == tt.evaluate(net, text().chunks(1, 7, "validation")).mean
    assert all(record.rate == 2e-3 and not record.clipped and record.norm > 0 for record in records)


def test_the_default_credit_carries_the_state_across_disjoint_chunks():
    vectors = []
    for credit in (None, tt.BPTT(h=5, every=5), "bptt:h=5,every=5"):
        net = network()
        list(train(net, text().chunks(3, 5), credit=credit))
        vectors.append(weights(net))
    assert torch.equal(vectors[0], vectors[1])
    assert torch.equal(vectors[0], vectors[2])


def test_validation_leaves_no_trace_in_training():
    vectors = []
    for validation in (None, text().chunks(2, 4, "validation")):
        net = network(layers=2, dropout=0.4)
        list(
            train(net, text().chunks(3, 5), updates=20, validation=validation, validate_every=1 if validation else None)
        )
        vectors.append(weights(net))
    assert torch.equal(*vectors)


def test_the_mode_of_the_network_is_set_for_training_and_put_back_by_evaluation():
    vectors = []
    for meddle in (False, True):
        net = network(layers=2, dropout=0.4)
        for _ in train(net, text().chunks(3, 5), updates=6):
            net.train(not meddle)
        vectors.append(weights(net))
        for mode in (True, False):
            net.train(mode)
            tt.evaluate(net, text().chunks(1, 9, "validation"))
            assert net.training is mode
    assert torch.equal(*vectors)


def test_patience_and_the_best_weights(tmp_path, monkeypatch):
    means = iter([5.0, 3.0, 4.0, 3.0, 2.9, 3.5, 3.1, 2.9, 1.0])
    seen = []

    def evaluate(net, *_):
        seen.append(weights(net))
        return inference.Score(next(means), 1)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    net = network()
    options = {"validation": text().chunks(1, 9, "validation"), "validate_every": 2, "patience": 3}
    records = list(train(net, text().chunks(3, 5), updates=100, run=tmp_path / "run", **options))
    assert len(seen) == 8
    assert records[-1].update == 16
    assert records[-1].best == 2.9
    assert torch.equal(weights(runs.load(tmp_path / "run").net), seen[4])


@pytest.mark.parametrize("limit", [{"updates": 7}, {"epochs": 1}, {"seconds": 1e-9}, {}])
def test_training_stops_at_its_limit(limit):
    chunks = text().chunks(3, 5)
    records = list(train(network(), chunks, validation=text().chunks(1, 9, "validation"), **limit))
    assert len(records) == {"updates": 7, "seconds": 0}.get(next(iter(limit), ""), len(chunks))
    assert all(record.validation is not None for record in records[-1:])


def test_cosine():
    assert 0 < cosine(0.0) < 0.1
    assert cosine(0.02) == pytest.approx(1)
    assert cosine(0.51) == pytest.approx(0.5)
    assert cosine(1.0) == pytest.approx(0)


# The caller's things


@pytest.mark.parametrize("kind", ["progress", "scheduler", "none"])
def test_optimiser_and_schedule_stay_the_callers(kind):
    net = network()
    optimizer = sgd(net, 0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    schedule = {"progress": cosine, "scheduler": scheduler, "none": None}[kind]
    if kind != "scheduler":
        optimizer = sgd(net, 0.1, momentum=0.9)
    records = list(train(net, text().chunks(3, 5), optimizer=optimizer, schedule=schedule, updates=4))
    assert optimizer.param_groups[0]["lr"] == (0.1 * 0.5**4 if kind == "scheduler" else 0.1)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert scheduler.last_epoch == (4 if kind == "scheduler" else 0)
    if kind == "scheduler":
        assert [record.rate for record in records] == [0.05, 0.025, 0.0125, 0.00625]
    before = weights(net)
    next(iter(train(net, text().chunks(3, 5), optimizer=optimizer, schedule=schedule, updates=4)))
    assert not torch.equal(before, weights(net))


def test_arguments_that_do_not_fit(tmp_path):
    chunks = text().chunks(3, 5)
    for options, said in (
        ({"patience": 3}, "patience must go with validation"),
        ({"resume": True}, "resume must go with run"),
        ({"clip": 0}, "clip must be above 0"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"credit": "hebb"}, "credit must be bptt"),
        ({"loss": "soft"}, "loss must be"),
    ):
        with pytest.raises(ValueError, match=said):
            train(network(), chunks, run=tmp_path / "run" if "resume" not in options else None, **options)
    with pytest.raises(ValueError, match="chunks must not be empty"):
        train(network(), [])
    assert not list(tmp_path.iterdir())


def test_what_would_change_nothing_is_refused() -> None:
    corpus = text()
    net, other = network(), network()
    chunks = corpus.chunks(2, 7)
    foreign = torch.optim.SGD(other.parameters(), lr=0.1)
    own = torch.optim.SGD(net.parameters(), lr=0.1)
    cases = {
        "no weight of net": {"optimizer": foreign},
        "over another one": {"optimizer": own, "schedule": torch.optim.lr_scheduler.StepLR(foreign, 1)},
        "waits for a loss": {"optimizer": own, "schedule": torch.optim.lr_scheduler.ReduceLROnPlateau(own)},
        "validation must not be empty": {"validation": []},
    }
    for sentence, options in cases.items():
        with pytest.raises(ValueError, match=sentence):
            train(net, chunks, **options)
    with pytest.raises(ValueError, match="end=True"):
        train(net, [chunks[0]])
