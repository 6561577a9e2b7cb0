"""No layer and no loss calls autodiff: their backward passes are written by hand."""

import ast
from pathlib import Path

import pytest

import funcnn

AUTODIFF = {
    "grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose", "jacfwd", "jacrev", "jacobian", "hessian",
    "custom_vjp", "custom_jvp", "custom_gradient", "autodiff_value_and_grad",
}  # fmt: skip
ROOT = Path(funcnn.__file__).parent
FILES = sorted([*(ROOT / "layers").glob("*.py"), *(ROOT / "losses").glob("*.py"), ROOT / "models.py"])


def names_in(source):
    """Every name and attribute that a module uses."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=[f"{file.parent.name}.{file.stem}" for file in FILES])
def test_no_autodiff(file):
    assert not AUTODIFF & set(names_in(file.read_text(encoding="utf-8")))


def test_calls_of_autodiff_are_seen():
    assert set(names_in("from jax import vjp\ny = jax.grad(f)(x)")) >= {"vjp", "grad"}
    assert len(FILES) > 10
