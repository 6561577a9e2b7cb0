"""Output whose reader leaves early: the command ends without a message, with the status that shells report."""

import contextlib
import os

import pytest

from funcnn.__main__ import main as funcnn_command
from funcnn._closed_output import CLOSED, silent_where_closed


@contextlib.contextmanager
def closed_pipe():
    """Make standard output a pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as output, contextlib.redirect_stdout(output):
        yield


@pytest.mark.parametrize("arguments", [[], ["practice", "list"]], ids=["help", "list"])
def test_a_command_ends_without_a_message(arguments, capfd):
    with closed_pipe(), pytest.raises(SystemExit) as end, silent_where_closed():
        funcnn_command(arguments)
    assert end.value.code == CLOSED == 141
    assert capfd.readouterr().err == ""


def test_output_that_is_read_changes_nothing(capsys):
    with silent_where_closed():
        assert funcnn_command(["practice", "list"]) == 0
    assert "relu-backward" in capsys.readouterr().out


def test_another_error_is_raised():
    with pytest.raises(ZeroDivisionError), silent_where_closed():
        1 / 0  # noqa: B018
