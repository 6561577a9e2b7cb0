"""The imports of funcnn: no cycles, and none from a lower package to a higher one; no autodiff in a backward pass."""

import ast
from pathlib import Path

import pytest

import funcnn

ROOT = Path(funcnn.__file__).parent
CHECKERS = ("funcnn.gradcheck", "funcnn.optimizercheck", "funcnn.health")
HIGHER = {
    "funcnn._numerics": (*CHECKERS, "funcnn._reports", "funcnn.training", "funcnn.layers", "funcnn.losses"),
    "funcnn._reports": (*CHECKERS, "funcnn._numerics", "funcnn.training", "funcnn.layers", "funcnn.losses"),
    "funcnn.gradcheck.explanation": ("funcnn.gradcheck.engine",),
    "funcnn.gradcheck.engine": tuple(
        f"funcnn.gradcheck.{name}" for name in ("check", "command", "layers", "rules", "taps")
    ),
    "funcnn.gradcheck": ("funcnn.optimizercheck", "funcnn.health", "funcnn.training"),
    "funcnn.optimizercheck": ("funcnn.gradcheck", "funcnn.health", "funcnn.training", "funcnn.layers"),
    "funcnn.layers": (*CHECKERS, "funcnn.training"),
}


def name_of(file):
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def imports_of(module):
    """Return the modules of funcnn that a module imports anywhere: in functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in submodules}
    return sorted(found & set(FILES))


IMPORTS = {module: imports_of(module) for module in FILES}


def cycle_through(module):
    """Return the modules of a cycle that starts and ends with ``module``, or an empty list."""
    paths, seen = [[module]], set()
    while paths:
        path = paths.pop()
        for imported in IMPORTS[path[-1]]:
            if imported == module:
                return [*path, module]
            if imported not in seen:
                seen.add(imported)
                paths.append([*path, imported])
    return []


def test_no_module_imports_itself_by_way_of_others():
    assert not [" -> ".join(cycle) for module in FILES if (cycle := cycle_through(module))]


def test_no_module_imports_the_whole_package():
    """``funcnn/__init__.py`` imports the packages below it: an import of ``funcnn`` in one of them is a cycle."""
    assert not [module for module in FILES if "funcnn" in IMPORTS[module]]


def is_inside(module, package):
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize("package", HIGHER)
def test_a_package_imports_no_higher_one(package):
    upward = [
        f"{module} -> {imported}"
        for module, imports in IMPORTS.items()
        for imported in imports
        if is_inside(module, package) and any(is_inside(imported, higher) for higher in HIGHER[package])
    ]
    assert not upward
    assert any(is_inside(module, package) for module in FILES)


def test_the_imports_were_read():
    assert "funcnn._numerics.program" in IMPORTS["funcnn._numerics.rounding"]
    assert "funcnn.gradcheck.engine.examination" in IMPORTS["funcnn.gradcheck.check"]
    assert "funcnn.losses" in IMPORTS["funcnn.gradcheck.command"]
    assert "funcnn.practice" in IMPORTS["funcnn"]


AUTODIFF = {
    "custom_jvp", "custom_vjp", "grad", "hessian", "jacfwd", "jacobian", "jacrev", "jvp", "linear_transpose",
    "linearize", "value_and_grad", "vjp",
}  # fmt: skip


def autodiff_in(source):
    """Return the names of JAX's autodiff that a module uses: as an attribute, or imported by name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in AUTODIFF:
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names} & AUTODIFF
    return found


@pytest.mark.parametrize("package", ["funcnn.layers", "funcnn.losses"])
def test_no_backward_pass_calls_autodiff(package):
    modules = [module for module in FILES if is_inside(module, package)]
    assert len(modules) > 5
    assert not {
        module: found for module in modules if (found := autodiff_in(FILES[module].read_text(encoding="utf-8")))
    }


def test_autodiff_is_found_where_it_is_called():
    assert autodiff_in("import jax\ndx = jax.vjp(f, x)[1](dy)") == {"vjp"}
    assert autodiff_in("from jax import linear_transpose as transpose") == {"linear_transpose"}
