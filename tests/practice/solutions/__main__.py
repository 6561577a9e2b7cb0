"""``python -m tests.practice.solutions``: write funcnn/practice/solutions.bin."""

from funcnn.practice.archive import FILE, pack
from tests.practice.solutions import SOLUTIONS

FILE.write_bytes(pack(SOLUTIONS))
