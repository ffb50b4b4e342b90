"""Algorithms by name; a new one is one file and one line here."""

from throughtime.credit.adaptive import AdaptiveBPTT
from throughtime.credit.base import Credit, Estimate
from throughtime.credit.bptt import BPTT
from throughtime.credit.forward import RTRL
from throughtime.credit.lag import ParallelBPTT
from throughtime.credit.random import RandomTruncation
from throughtime.credit.sparse import RFLO, SnAp
from throughtime.credit.uoro import UORO
from throughtime.nets import Loss, sum_errors
from throughtime.spelling import parse, spell

__all__ = [
    "BPTT",
    "RFLO",
    "RTRL",
    "UORO",
    "AdaptiveBPTT",
    "Credit",
    "Estimate",
    "Loss",
    "ParallelBPTT",
    "RandomTruncation",
    "SnAp",
    "algorithms",
    "credit_named",
    "spell_credit",
    "sum_errors",
]

algorithms: dict[str, type[Credit]] = {
    "bptt": BPTT,
    "parallel": ParallelBPTT,
    "random": RandomTruncation,
    "adaptive": AdaptiveBPTT,
    "rtrl": RTRL,
    "snap": SnAp,
    "rflo": RFLO,
    "uoro": UORO,
}


def credit_named(name: str | Credit) -> Credit:
    """The algorithm that a spelling such as `bptt:h=70,every=35` names; a Credit is returned as it is."""
    return name if isinstance(name, Credit) else parse(name, algorithms, "credit")


def spell_credit(credit: Credit) -> str:
    """The spelling of an algorithm, or the name of its class when it is not one of the library's."""
    return spell(credit, algorithms) if type(credit) in algorithms.values() else type(credit).__name__
