"""The page of durations: what pytest prints is summed by file, and the column "after" is replaced."""

from tests import durations

OUTPUT = """
2.00s call     tests/test_a.py::test_one[x::y]
0.50s setup    tests/test_a.py::TestB::test_two
0.25s call     funcnn/models.py::funcnn.models.mlp
1.25s call     funcnn/losses.py::funcnn.losses.hinge
3 passed, 1 skipped, 2 deselected in 61.20s (0:01:01)
"""
PAGE = """- Before: 9 passed in 1.00s
- After: not measured yet

| file | before |  after |
|:-----|-------:|-------:|
| tests/test_a.py |    4.0 |      – |
| tests/test_gone.py |    1.0 |      – |
"""


def test_seconds_are_summed_by_file_and_docstrings_together():
    assert durations.seconds_by_file(OUTPUT) == {"tests/test_a.py": 2.5, durations.DOCSTRINGS: 1.5}


def test_the_column_after_is_replaced():
    page = durations.updated(PAGE, OUTPUT)
    rows = {"tests/test_a.py": (4.0, 2.5), durations.DOCSTRINGS: (None, 1.5), "tests/test_gone.py": (1.0, None)}
    assert durations.read(page) == rows
    assert list(durations.read(page)) == list(rows)
    assert "- Before: 9 passed in 1.00s\n- After: 3 passed, 1 skipped, 2 deselected in 61.20s\n" in page
    assert durations.updated(page, OUTPUT) == page


def test_the_page_in_the_repository_has_the_slowest_files():
    assert max(durations.latest().values()) > 1
