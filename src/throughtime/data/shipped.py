"""Real data in the package, so that nothing needs a network; origin and licence are in NOTICE."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHECKSUMS = {
    "co2.csv": "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f",
    "shakespeare.txt": "8898870164a23d324333c277b8ba6bcb13c153a93ab1df782bb761b6eb444b11",
    "sunspots.csv": "17a91da8b3196e06a265967242dd0a931fa5262f5646ff2a1d9b7e11264bd939",
    "timemachine.txt": "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516",
}
"""SHA-256 of each file, uncompressed."""


def path(name: str) -> Path:
    """Where the compressed file lies. Raises ValueError for a name that is not in CHECKSUMS."""
    if name not in CHECKSUMS:
        raise ValueError(f"name must be one of {', '.join(CHECKSUMS)}; got {name!r}.")
    return Path(__file__).parent / "shipped" / f"{name}.gz"


def read(name: str) -> bytes:
    """The file's bytes, uncompressed. Raises ValueError when they are not those that were shipped."""
    raw = gzip.decompress(path(name).read_bytes())
    if hashlib.sha256(raw).hexdigest() != CHECKSUMS[name]:
        raise ValueError(f"{name} must have the SHA-256 in CHECKSUMS; it was changed. Install again.")
    return raw


@cache
def shakespeare() -> str:
    """Eight plays, 1 074 893 ASCII characters of 72 kinds: Text.of(shakespeare())."""
    return read("shakespeare.txt").decode("ascii")


@cache
def time_machine() -> str:
    """H. G. Wells, The Time Machine (1895), 178 979 ASCII characters: prose of another author, beside the plays."""
    return read("timemachine.txt").decode("ascii")


def sunspots() -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The years 1700 to 2008 and the mean sunspot number of each, (309,) both."""
    table = _table("sunspots.csv")
    return table[:, 0].astype(np.int64), table[:, 1]


def co2() -> tuple[NDArray[np.datetime64], NDArray[np.float64]]:
    """The weeks from March 1958 to December 2001 and the CO2 at Mauna Loa in ppm (NaN: missing), (2284,)."""
    table = _table("co2.csv")
    days = [f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in table[:, 0].astype(np.int64).astype(str)]
    return np.array(days, "datetime64[D]"), table[:, 1]


def _table(name: str) -> NDArray[np.float64]:
    return np.genfromtxt(read(name).decode("ascii").splitlines(), delimiter=",", skip_header=1)
