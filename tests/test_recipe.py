"""The choices that `train` makes: they fit every text and time, and yield to every flag."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from terminal import story

from throughtime.cli.fitting import prepare
from throughtime.cli.options import NetworkOptions, Options, TrainingOptions, given
from throughtime.data import Text
from throughtime.recipe import recipe

TINYSHAKESPEARE = 1_003_853
PLAYS = 264_277


def job(unit: str = "char", *, network: NetworkOptions | None = None, **training):
    text = Text.of(story(60_000), unit=unit)
    return prepare(text, {}, Options(network=network or NetworkOptions(), training=TrainingOptions(**training)))


@pytest.mark.parametrize("limit", [{}, {"seconds": 0.1}, {"seconds": 1e6}, {"epochs": 1}, {"updates": 7, "epochs": 9}])
@pytest.mark.parametrize("unit", ["char", "byte", "word"])
@pytest.mark.parametrize("targets", [1, 2, 7, 100, 5000, 10**5, 10**6, 10**9])
def test_the_recipe_fits_every_size(targets, unit, limit):
    advice = recipe(targets, unit, **limit)
    assert 1 <= advice.streams <= targets
    assert 1 <= advice.steps <= targets
    assert 32 <= advice.units <= 512
    assert 0 <= advice.dropout < 1
    assert advice.updates >= 300
    assert advice.passes > 0


def test_the_recipe_for_a_megabyte_of_characters():
    three, ten = (recipe(TINYSHAKESPEARE, seconds=60 * minutes) for minutes in (3, 10))
    assert (three.units, three.dropout, three.streams, three.steps) == (256, 0.0, 16, 64)
    assert (three.rate, three.decay, three.tie) == (8e-3, 0.1, False)
    assert (ten.units, ten.dropout, ten.rate) == (512, 0.4, 3e-3)
    assert recipe(TINYSHAKESPEARE) == replace(three, passes=recipe(TINYSHAKESPEARE).passes)


@pytest.mark.parametrize("limit", [{}, {"seconds": 180}, {"seconds": 600}])
def test_the_recipe_for_the_words_of_eight_plays(limit):
    advice = recipe(PLAYS, "word", **limit)
    assert (advice.units, advice.dropout, advice.tie, advice.rate) == (256, 0.5, True, 8e-3)
    assert (advice.streams, advice.steps) == (16, 32)


def test_a_limit_of_any_kind_says_how_often_the_text_is_read():
    epochs = 20
    updates = epochs * TINYSHAKESPEARE / (16 * 64)
    assert recipe(TINYSHAKESPEARE, epochs=epochs).dropout > 0
    assert recipe(TINYSHAKESPEARE, updates=updates) == recipe(TINYSHAKESPEARE, epochs=epochs)
    assert recipe(TINYSHAKESPEARE, epochs=epochs, updates=100).dropout == 0


def test_what_is_to_be_known_by_heart_has_no_dropout():
    assert recipe(6).dropout == recipe(6, "word", epochs=1000).dropout == recipe(3000, seconds=3600).dropout == 0


def test_words_share_their_vectors_unless_told_otherwise():
    assert job("word").net.tie
    assert not job("word", network=NetworkOptions(embedding=8)).net.tie
    assert not job("word", network=NetworkOptions(tie=False)).net.tie
    assert job("char", network=NetworkOptions(tie=True)).net.tie
    assert "tie" not in job("word", network=NetworkOptions(cell="mlp")).net.config()


def test_flags_come_before_the_recipe():
    network = NetworkOptions(units=24, layers=2, embedding=6, dropout=0.25)
    own = job(network=network, streams=3, steps=5, rate=0.5, decay=0.0, time="10m")
    assert {name: own.net.config()[name] for name in given(network)} == given(network)
    assert (own.chunks.streams, own.chunks.steps, own.credit.h) == (3, 5, 5)
    assert (own.optimizer.defaults["lr"], own.optimizer.defaults["weight_decay"]) == (0.5, 0.0)
    assert own.limits == {"epochs": None, "updates": None, "seconds": 600.0}
    assert job(network=NetworkOptions(dropout=0.0), epochs=99).net.dropout == 0


def test_weight_decay_is_for_adamw_alone():
    assert job().optimizer.defaults["weight_decay"] == 0.1
    assert job(optimizer="sgd").optimizer.defaults["weight_decay"] == 0
    assert job(optimizer="sgd", decay=0.2).optimizer.defaults["weight_decay"] == 0.2


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_update_in_one_kernel_is_the_update(name):
    weights = []
    for fused in (True, False):
        own = job(optimizer=name)
        assert own.optimizer.defaults["fused"] is True
        own.optimizer.param_groups[0]["fused"] = fused
        torch.manual_seed(1)
        for _ in range(3):
            for weight in own.net.parameters():
                weight.grad = torch.randn_like(weight)
            own.optimizer.step()
        weights.append(torch.cat([weight.detach().flatten() for weight in own.net.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-7)


def test_an_optimizer_that_has_no_such_kernel_goes_without():
    assert job(optimizer="adamw:differentiable=true").optimizer.defaults["fused"] is None
    assert "fused" not in job(optimizer="rprop").optimizer.defaults


def test_ten_looks_a_training():
    assert job(updates=100).validate_every == 10
    chunks = job().chunks
    assert job(epochs=40).validate_every == 4 * len(chunks)
    assert job(time="1000s").validate_every == int(recipe(chunks.count, seconds=1000).passes * len(chunks)) // 10
