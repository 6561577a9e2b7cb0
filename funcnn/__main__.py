"""``python -m funcnn``: funcnn on the command line."""

import sys

if sys.argv[1:2] == ["practice"]:
    from funcnn.practice.command import main as practice

    sys.exit(practice(sys.argv[2:]))

try:
    from funcnn.gradcheck.command import main
except ModuleNotFoundError as error:
    if error.name != "tyro":
        raise
    sys.stderr.write("python -m funcnn: expected tyro, got no such module. Install it: pip install 'funcnn[report]'.\n")
    sys.exit(2)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], apart=True))
