"""The solutions of the exercises, compressed in one file, so that none is read by accident.

Their text stands in the repository under tests/practice/solutions, outside of the wheel; ``python -m
tests.practice.solutions`` writes this file from it.
"""

import functools
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from funcnn.practice.task import Answers, Mistake

FILE = Path(__file__).with_name("solutions.bin")


def pack(solutions: Mapping[str, Answers]) -> bytes:
    """Return solutions as compressed bytes."""
    return zlib.compress(json.dumps(solutions, sort_keys=True).encode(), level=9)


@functools.cache
def solutions() -> dict[str, Answers]:
    """Return the solution of each exercise that isn't a repair, by its name."""
    data = json.loads(zlib.decompress(FILE.read_bytes()))
    return {name: Answers(text, tuple(Mistake(*entry) for entry in entries)) for name, (text, entries) in data.items()}
