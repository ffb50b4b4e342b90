"""The shipped data are what NOTICE says they are, and carry the figures that are known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from throughtime.data import Text, co2, shakespeare, shipped, sunspots, time_machine

NOTICE = Path(__file__).parents[1] / "NOTICE"


@pytest.mark.parametrize("name", shipped.CHECKSUMS)
def test_checksum_and_notice(name: str) -> None:
    assert shipped.read(name)  # raises when the checksum is not met
    notice = NOTICE.read_text()
    assert name in notice
    assert shipped.CHECKSUMS[name] in notice


def test_every_shipped_file_is_listed() -> None:
    folder = shipped.path("co2.csv").parent
    assert {path.name for path in folder.iterdir()} == {f"{name}.gz" for name in shipped.CHECKSUMS}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 600_000
    with pytest.raises(ValueError, match="name must be one of"):
        shipped.path("milton.txt")


def test_a_changed_file_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(shipped.CHECKSUMS, "co2.csv", "0" * 64)
    with pytest.raises(ValueError, match="it was changed"):
        shipped.read("co2.csv")


def test_the_plays() -> None:
    plays = shakespeare()
    assert plays.isascii()
    assert plays.startswith("ROMEO AND JULIET\n\nTHE PROLOGUE\n")
    assert plays.count("\n\n\n") == 7
    for word in ("gutenberg", "etext", "copyright"):
        assert word not in plays.lower()
    text = Text.of(plays)
    assert len(text.ids) == len(plays) == 1_074_893
    assert (text.ids > 0).all(), "all characters of validation and test occur in the training part"


def test_the_time_machine() -> None:
    book = time_machine()
    assert book.isascii()
    assert book.startswith("The Time Machine, by H. G. Wells [1898]\n")
    assert book.endswith("on in the heart\nof man.\n")
    assert len(book) == 178_979
    assert "gutenberg" not in book.lower()


def test_sunspots_meet_the_published_linear_fit() -> None:
    """AR(12) fitted on 1712-1920: mean squared error 193.8 on 1921-55 and 550.2 on 1956-79."""
    years, counts = sunspots()
    assert (years == np.arange(1700, 2009)).all()
    rows = np.array([[1, *counts[t - 12 : t]] for t in range(12, len(counts))])
    wanted, when = counts[12:], years[12:]
    train = when <= 1920
    weights = np.linalg.lstsq(rows[train], wanted[train], rcond=None)[0]
    for first, last, figure in ((1921, 1955, 193.8), (1956, 1979, 550.2)):
        part = (when >= first) & (when <= last)
        assert ((rows[part] @ weights - wanted[part]) ** 2).mean() == pytest.approx(figure, abs=0.05)


def test_co2_is_weekly_and_rises() -> None:
    weeks, ppm = co2()
    assert len(weeks) == len(ppm) == 2284
    assert (np.diff(weeks) == np.timedelta64(7, "D")).all()
    assert str(weeks[0]) == "1958-03-29"
    assert np.isnan(ppm).sum() == 59
    assert np.nanmean(ppm[:100]) < 320 < 360 < np.nanmean(ppm[-100:])
