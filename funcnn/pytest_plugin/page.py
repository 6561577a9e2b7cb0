"""The page of ``--gradcheck-report``: a row for each gradient check of a run."""

import os
from collections.abc import Sequence
from typing import Any

from funcnn._reports.html import write_page


def write_run(path: str | os.PathLike[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write the page, the checks that failed first.

    Args:
        path: the file to write.
        rows: as ``record_of`` returns them, with the test's name as ``test``.
    """
    ordered = sorted(rows, key=lambda row: (row["ok"], row["test"]))
    write_page(path, "funcnn.pytest_plugin", "run.html.jinja", rows=ordered, wrong=sum(not row["ok"] for row in rows))
