"""``python -m funcnn.gradcheck``, the same as ``python -m funcnn gradcheck``."""

import sys

from funcnn.__main__ import main
from funcnn._closed_output import silent_where_closed

if __name__ == "__main__":
    with silent_where_closed():
        sys.exit(main(["gradcheck", *sys.argv[1:]]))
