"""The differences of trees and the places of errors, as messages state them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnn._checks import errors_at, errors_of
from funcnn._optional import import_optional
from funcnn._tree_checks import check_same_structure

PARAMS = {"b1": np.zeros(5), "w1": np.zeros((3, 5))}
EXPECTED = r"f\(grads\): expected the tree structure of the parameters, \['b1'\] \(5,\), \['w1'\] \(3, 5\); got "


@pytest.mark.parametrize(
    ("tree", "difference"),
    [
        ({"w1": PARAMS["w1"]}, r"no \['b1'\]\. Give one entry"),
        ({"w1": PARAMS["w1"], "b2": np.zeros(5)}, r"no \['b1'\], and \['b2'\] \(5,\), which isn't there\."),
        (PARAMS | {"b2": np.zeros(2)}, r"\['b2'\] \(2,\), which isn't there\."),
        (PARAMS | {"b1": None}, r"no \['b1'\]\."),
        (PARAMS | {"b1": [np.zeros(5)]}, r"no \['b1'\], and \['b1'\]\[0\] \(5,\), which isn't there\."),
        (None, r"None\."),
        ((), r"a tuple without arrays\."),
        ([np.zeros(2)], r"\[0\] \(2,\)\."),
        (np.zeros(3), r"one array \(3,\)\."),
        (3, r"one int\."),
    ],
)
def test_trees_differ_in_paths_and_shapes(tree, difference):
    with pytest.raises(ValueError, match=EXPECTED + difference) as caught:
        check_same_structure("f(grads)", tree, PARAMS, "the parameters")
    assert "PyTreeDef" not in str(caught.value)


def test_other_containers_of_the_same_entries_are_named():
    with pytest.raises(ValueError, match=r"got a list at \['layers'\] in the place of a tuple\."):
        check_same_structure("f(grads)", {"layers": [1.0, 2.0]}, {"layers": (1.0, 2.0)}, "the parameters")


def test_a_tree_of_many_entries_is_cut():
    many = [jnp.zeros(2)] * 30
    with pytest.raises(ValueError, match=r"\[7\] \(2,\), and 22 more; got no \[29\]\."):
        check_same_structure("f(grads)", many[:29], many, "the parameters")


def test_places_are_added_to_plain_errors_alone():
    class OwnError(ValueError):
        pass

    for error, message in ((TypeError("no"), "outer.inner: no"), (OwnError("no"), "no"), (KeyError("no"), "'no'")):
        with pytest.raises(type(error)) as caught, errors_at("outer"), errors_at("inner"):
            raise error
        assert str(caught.value) == message


def test_the_name_of_an_argument_is_added_to_plain_errors_alone():
    class OwnError(ValueError):
        pass

    for error, message in ((ValueError("no"), "fit(data): no"), (OwnError("no"), "no")):
        with pytest.raises(type(error)) as caught, errors_of("fit(data)"):
            raise error
        assert str(caught.value) == message


def test_an_error_of_tracing_names_the_function_once_and_the_innermost_line():
    place = r"^predict: .* calls NumPy at \S*test_checks\.py:\d+, in by_numpy\."
    with pytest.raises(TypeError, match=place) as caught, errors_of("predict(x)"):
        jax.jit(by_numpy)(np.ones(2))
    assert isinstance(caught.value.__cause__, jax.errors.TracerArrayConversionError)


def by_numpy(x):
    return np.asarray(x)


def test_an_optional_library_that_lacks_one_of_its_own_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "board_of_a_test.py").write_text("import event_files_of_a_test")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'event_files_of_a_test'$"):
        import_optional("board_of_a_test", "TensorBoard(folder)", "training")
    with pytest.raises(ModuleNotFoundError, match=r"expected board, which isn't .* pip install 'funcnn\[training\]'"):
        import_optional("board.of.no.test", "TensorBoard(folder)", "training")
