"""An assertion that the cause of a wrong gradient is named, and that the right twin passes."""

import funcnn as fnn


def assert_named(loss, gradient, given, cause, words, *, wrong=True):
    """Assert that the right gradient passes, and that the wrong one has one cause, which says some words.

    Args:
        loss: ``(params, *args) -> ()``.
        gradient: the same with an argument more, which is ``wrong`` for the wrong one and ``False`` for the right one.
        given: the parameters and the arguments.
        cause: the expected one, of every wrong leaf.
        words: a part of the diagnosis.
        wrong: what the gradient gets for the wrong one.
    """
    assert fnn.check_gradients(loss, lambda *all_of: gradient(*all_of, False), *given).ok
    report = fnn.check_gradients(loss, lambda *all_of: gradient(*all_of, wrong), *given)
    assert {leaf.cause for leaf in report.leaves if not leaf.ok} == {cause}, str(report)
    assert words in " ".join(report.diagnosis.split()), str(report)
