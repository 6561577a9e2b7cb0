"""``python -m funcnn``: funcnn on the command line."""

import sys

from funcnn._closed_output import silent_where_closed

HELP = """\
usage: python -m funcnn COMMAND ...

Neural networks with every backward pass written by hand.

commands:
  gradcheck   check a gradient written by hand, your own or that of one of funcnn's models
  practice    exercises in backpropagation as files, graded from the command line

`python -m funcnn COMMAND --help` shows the options of a command.
"""


def main(arguments: list[str]) -> int:
    """Run a command; return 0, 1 where what was checked or graded is wrong, 2 for a wrong call."""
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if command == "practice":
        from funcnn.practice.command import main as practice

        return practice(rest)
    if command != "gradcheck":
        sys.stderr.write(
            f"python -m funcnn: expected the command gradcheck or practice, got {command}. "
            "`python -m funcnn --help` describes both.\n"
        )
        return 2
    try:
        from funcnn.gradcheck.command import main as gradcheck
    except ModuleNotFoundError as error:
        if error.name != "tyro":
            raise
        sys.stderr.write(
            "python -m funcnn gradcheck: expected tyro, which isn't installed. "
            "Install it: pip install 'funcnn[report]'.\n"
        )
        return 2
    return gradcheck(arguments, apart=True)


if __name__ == "__main__":
    with silent_where_closed():
        sys.exit(main(sys.argv[1:]))
