"""One spelling of a choice: parsed, never evaluated, and back."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.cells import CTRNN, LSTM, Cell, Elman, cell_named, cells, spell_cell
from throughtime.credit import BPTT, algorithms, credit_named, spell_credit
from throughtime.spelling import parse, spell


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("bptt", BPTT()),
        ("bptt:h=70,every=35", BPTT(70, 35)),
        ("bptt:h=3,replay=false", BPTT(3, replay=False)),
        (" bptt: every = 2 , h = 4 ", BPTT(4, 2)),
        ("bptt:h=none", BPTT()),
        ("bptt:h=5,replay=TRUE", BPTT(5)),
    ],
)
def test_algorithms(text: str, choice: BPTT) -> None:
    assert credit_named(text) == choice
    assert credit_named(spell_credit(choice)) == choice
    assert credit_named(choice) is choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("elman:phi=relu", Elman("relu")),
        ("lstm", LSTM()),
        ("ctrnn:alpha=1e-2", CTRNN(0.01)),
        ("ctrnn:alpha=1", CTRNN(1.0)),
    ],
)
def test_cells(text: str, choice: Cell) -> None:
    assert cell_named(text) == choice
    assert cell_named(spell_cell(choice)) == choice


@given(st.integers(1, 500), st.integers(1, 500), st.booleans())
def test_every_choice_is_read_back_as_it_was(h: int, every: int, replay: bool) -> None:
    choice = BPTT(max(h, every), min(h, every), replay)
    assert parse(spell(choice, algorithms), algorithms) == choice


@given(st.floats(1e-300, 1.0))
def test_a_float_is_read_back_to_the_last_bit(alpha: float) -> None:
    assert cell_named(spell_cell(CTRNN(alpha))) == CTRNN(alpha)


def test_defaults_are_left_out() -> None:
    assert spell(BPTT(70, 35), algorithms) == "bptt:h=70,every=35"
    assert spell(BPTT(3, replay=False), algorithms) == "bptt:h=3,replay=false"
    assert spell_cell(Elman()) == "elman"


def test_every_name_is_its_own_spelling() -> None:
    for name, kind in (cells | algorithms).items():
        assert spell(kind(), cells | algorithms) == name


def test_a_choice_of_ones_own_is_spelled_by_its_class() -> None:
    @dataclass(frozen=True)
    class Mine(Elman):
        pass

    assert spell_cell(Mine()) == "Mine"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bpt", r"credit must be bptt, .* or .*; got 'bpt'. Did you mean 'bptt'\?"),
        ("", "credit must be bptt, .* or .*; got ''."),
        ("bptt:hh=3", r"credit 'bptt' has h, every, replay and memory; got 'hh=3'. Did you mean 'h'\?"),
        ("bptt:h", "credit 'bptt' has h, every, replay and memory; got 'h'"),
        ("bptt:h=x", "h of credit 'bptt' must be int or none; got 'x'."),
        ("bptt:h=2.5", "h of credit 'bptt' must be int or none; got '2.5'."),
        ("bptt:h=3,replay=1", "replay of credit 'bptt' must be true or false; got '1'."),
        ("bptt:h=3,h=4", "h of credit 'bptt' must be given once; got it twice."),
        ("bptt:h=__import__('os')", "h of credit 'bptt' must be int or none"),
        ("bptt:h=2,every=3", "h must be at least every; got h=2, every=3."),
    ],
)
def test_misspelt_algorithms_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        credit_named(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gruu", r"cell must be elman, gru, lstm or ctrnn; got 'gruu'. Did you mean 'gru'\?"),
        ("gru:units=3", "cell 'gru' has no options; got 'units=3'."),
        ("elman:phi=cos", "phi must be one of tanh, relu, sigmoid, identity; got 'cos'."),
        ("ctrnn:alpha=nan", "alpha must be above 0 and at most 1; got nan."),
        ("ctrnn:alpha=0", "alpha must be above 0 and at most 1"),
    ],
)
def test_misspelt_cells_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        cell_named(text)
