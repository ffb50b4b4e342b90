"""Text, number series and toy problems as chunks of time, and the small public-domain data that come along."""

from throughtime.data import tasks
from throughtime.data.series import Series
from throughtime.data.shipped import co2, shakespeare, sunspots, time_machine
from throughtime.data.split import parse_split, spell_split
from throughtime.data.text import Chunks, Text
from throughtime.data.vocabulary import Vocabulary

__all__ = [
    "Chunks",
    "Series",
    "Text",
    "Vocabulary",
    "co2",
    "parse_split",
    "shakespeare",
    "spell_split",
    "sunspots",
    "tasks",
    "time_machine",
]
