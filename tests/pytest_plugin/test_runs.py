"""The pytest plugin, by runs of pytest on small test files."""

import importlib.metadata
import os
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax
import jaxlib.mlir.dialects.builtin  # noqa: F401 - an inner run's modules are forgotten, and this one is imported once
import pytest

from funcnn._numerics.precision import enable_x64

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parent.parent.parent
IS_INSTALLED = "funcnn" in {entry.name for entry in importlib.metadata.entry_points(group="pytest11")}
PLUGINS = ("-p", "no:jaxtyping", *(() if IS_INSTALLED else ("-p", "pytest_funcnn")))
RULES = '''
import jax, jax.numpy as jnp, numpy as np, pytest

rng = np.random.default_rng(0)
X = jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)
S = jnp.asarray(rng.normal(size=6), jnp.float32)


def plain(x, s):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + jnp.asarray(1e-5, x.dtype)) * s


def rule(change):
    """RMS norm with a rule whose gradients pass through ``change``."""

    @jax.custom_vjp
    def norm(x, s):
        return plain(x, s)

    def backward(kept, dy):
        x, s = kept
        r = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + jnp.asarray(1e-5, x.dtype))
        n, g = x * r, dy * s
        dx, ds = r * (g - n * (g * n).mean(-1, keepdims=True)), (dy * n).reshape(-1, s.shape[-1])
        return change(x, dx, ds)

    norm.defvjp(lambda x, s: (plain(x, s), (x, s)), backward)
    return norm


right = rule(lambda x, dx, ds: (dx, ds.sum(0)))
'''
RUN = (
    RULES
    + """
one_row_more = rule(lambda x, dx, ds: (dx, ds[: 2 * (len(ds) // 2)].sum(0)))
half_in_bfloat16 = rule(lambda x, dx, ds: (dx * (0.5 if x.dtype == jnp.bfloat16 else 1), ds.sum(0)))
at_rank_3 = rule(lambda x, dx, ds: (dx, ds[: len(x)].sum(0)))


def test_right(gradcheck):
    report = gradcheck.rule(right, X, S, reference=plain)
    assert sum(entry.ok is True and "axis" in entry.name for entry in report.properties) >= 5


@pytest.mark.gradcheck_sweep(shapes=[(5, 6)])
def test_odd(gradcheck):
    gradcheck.rule(one_row_more, X, S, reference=plain)


@pytest.mark.gradcheck_sweep(dtypes=["bfloat16"])
@pytest.mark.xfail(reason="scaled: half of the gradient")
def test_known(gradcheck):
    gradcheck.rule(half_in_bfloat16, X, S, reference=plain)


@pytest.mark.gradcheck_sweep(shapes=[(2, 4, 6)])
@pytest.mark.xfail(reason="sign: another cause")
def test_other_cause(gradcheck):
    gradcheck.rule(at_rank_3, X, S, reference=plain)
"""
)


def run_inner(pytester, *options):
    """Run the inner tests with JAX's own settings, in the place of the stricter ones of this suite."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), enable_x64(False):
        return pytester.runpytest_inprocess(*PLUGINS, *options)


def test_a_run(pytester, tmp_path):
    pytester.makepyfile(RUN)
    page, junit = tmp_path / "page.html", tmp_path / "junit.xml"
    result = run_inner(pytester, f"--gradcheck-report={page}", f"--junitxml={junit}")
    output = result.stdout.str()
    result.assert_outcomes(passed=1, failed=2, xfailed=1)
    assert "Smallest failing case: as marked: float32 (5, 6), (6,)" in output
    assert "expects a failure by this cause, got" in output
    assert f"gradient checks: 4, written to {page}" in output
    html = page.read_text(encoding="utf-8")
    assert html.count('<th scope="row">') == 4
    assert "Gradient checks: 3 of 4 wrong" in html
    xml = junit.read_text(encoding="utf-8")
    assert '<property name="gradcheck.verdict" value="hand-written wrong"' in xml
    assert '<property name="gradcheck.cause" value="scaled"' in xml


CORNERS = (
    RULES
    + '''
def option(wrong):
    """x cumulated from either end, or doubled; the rule is wrong for one value of an option."""

    def forward(x, reverse, mode):
        return jax.lax.cumsum(x, axis=0, reverse=reverse) * (2 if mode == "double" else 1)

    def function(x, reverse=False, mode="plain"):
        @jax.custom_vjp
        def inner(x):
            return forward(x, reverse, mode)

        flag, factor = wrong(reverse, mode)
        inner.defvjp(
            lambda x: (inner(x), None), lambda kept, dy: (jax.lax.cumsum(dy, axis=0, reverse=not flag) * factor,)
        )
        return inner(x)

    return function, forward


def product_rule(sum_of):
    @jax.custom_vjp
    def product(x, y):
        return x * y

    product.defvjp(lambda x, y: (x * y, (x, y)), lambda kept, dy: (dy * kept[1], sum_of(dy * kept[0], kept[1])))
    return product


@jax.custom_vjp
def square_of(x, w):
    return (x @ w) @ w


square_of.defvjp(
    lambda x, w: ((x @ w) @ w, (x, w)), lambda kept, dy: (dy @ kept[1].T @ kept[1].T, (kept[0] @ kept[1]).T @ dy)
)


def test_rank_3(gradcheck):
    @jax.custom_vjp
    def norm(x, s):
        return plain(x, s)

    def backward(kept, dy):
        x, s = kept
        r = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + jnp.asarray(1e-5, x.dtype))
        n, g = x * r, dy * s
        return r * (g - n * (g * n).mean(1, keepdims=True)), (dy * n).reshape(-1, s.shape[-1]).sum(0)

    norm.defvjp(lambda x, s: (plain(x, s), (x, s)), backward)
    gradcheck.rule(norm, X, S, reference=plain)


def test_odd_batch(gradcheck):
    gradcheck.rule(rule(lambda x, dx, ds: (dx, ds[: 2 * (len(ds) // 2)].sum(0))), X, S, reference=plain)


def test_uniform_cotangent(gradcheck):
    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, dy: (jnp.cos(x) * dy.ravel()[0],))
    gradcheck.rule(sine, X, reference=lambda x: jnp.sin(x))


@pytest.mark.gradcheck_sweep(options={"mode": ["plain", "double"]})
def test_one_mode(gradcheck):
    function, forward = option(lambda reverse, mode: (reverse, 1))
    gradcheck.rule(function, X, reference=forward, reverse=False, mode="plain")


def test_bfloat16(gradcheck):
    wrong = rule(lambda x, dx, ds: (dx * (0.5 if x.dtype == jnp.bfloat16 else 1), ds.sum(0)))
    gradcheck.rule(wrong, X, S, reference=plain)


@pytest.mark.gradcheck_sweep(dtypes=["float16", "float8_e5m2", "float8_e4m3fn"])
def test_float8(gradcheck):
    wrong = rule(lambda x, dx, ds: (dx * (1.5 if x.dtype == jnp.float8_e4m3fn else 1), ds.sum(0)))
    gradcheck.rule(wrong, X, S, reference=plain)


def test_ignored_flag(gradcheck):
    function, forward = option(lambda reverse, mode: (False, 1))
    gradcheck.rule(function, X, reference=lambda x, reverse: forward(x, reverse, "plain"), reverse=False)


def test_missing_sum(gradcheck):
    gradcheck.rule(product_rule(lambda dy, y: dy), X, X + 1, reference=lambda x, y: x * y)


def test_second_use(gradcheck):
    gradcheck.rule(square_of, X, jnp.asarray(rng.normal(size=(6, 6)), jnp.float32), reference=lambda x, w: (x @ w) @ w)
'''
)
CAUSES = {
    "test_rank_3": "wrong_axis",
    "test_odd_batch": "subset_of_batch",
    "test_uniform_cotangent": "wrong_operand",
    "test_one_mode": "scaled",
    "test_bfloat16": "scaled",
    "test_float8": "scaled",
    "test_ignored_flag": "transposed",
    "test_missing_sum": "shape",
    "test_second_use": "lost_use",
}


@pytest.mark.thorough
def test_each_wrong_corner_fails_with_its_cause(pytester, tmp_path):
    pytester.makepyfile(CORNERS)
    junit = tmp_path / "junit.xml"
    result = run_inner(pytester, f"--junitxml={junit}")
    result.assert_outcomes(failed=9)
    causes = {
        case.get("name"): case.find("properties/property[@name='gradcheck.cause']").get("value")
        for case in ElementTree.parse(junit).iter("testcase")
    }
    assert causes == CAUSES


PALLAS = """
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import pallas as pl


def root(x):
    return jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def forward_kernel(x_ref, s_ref, y_ref):
    x = x_ref[...]
    y_ref[...] = x * root(x) * s_ref[...]


def backward_kernel(x_ref, s_ref, dy_ref, dx_ref, ds_ref):
    x, dy = x_ref[...], dy_ref[...]
    r, g = root(x), dy * s_ref[...]
    n = x * r
    dx_ref[...] = r * (g - n * (g * n).mean(-1, keepdims=True))
    ds_ref[...] = (dy * n).reshape(-1, x.shape[-1]).sum(0)


def call(kernel, like, *arrays):
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), like)
    return pl.pallas_call(kernel, out_shape=shapes, interpret=True)(*arrays)


@jax.custom_vjp
def norm(x, s):
    return call(forward_kernel, x, x, s)


norm.defvjp(lambda x, s: (norm(x, s), (x, s)), lambda kept, dy: call(backward_kernel, kept, *kept, dy))


def test_norm(gradcheck):
    x, s = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32), np.ones(8, np.float32)
    gradcheck.rule(norm, x, s, reference=lambda x, s: x * root(x) * s)
    assert gradcheck.records[0]["cases"] == 12
    assert gradcheck.records[0]["rejected"] == 0
"""


@pytest.mark.thorough
def test_a_pallas_kernel_is_right_in_twelve_cases(pytester):
    pytester.makepyfile(PALLAS)
    run_inner(pytester).assert_outcomes(passed=1)


def run_apart(folder, *options):
    """Run pytest on a folder in a process of its own, which finds the plugin by its entry point."""
    if not IS_INSTALLED:
        entries = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
        about = folder / "funcnn_entry-0.dist-info"
        about.mkdir(exist_ok=True)
        lines = [f"{name} = {module}" for name, module in entries["pytest11"].items()]
        (about / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]), encoding="utf-8")
        (about / "METADATA").write_text("Name: funcnn-entry\nVersion: 0\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:jaxtyping", *options], cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_run_without_the_fixture_imports_no_jax(tmp_path):
    marked = "import pytest\nimport sys\n\n\n@pytest.mark.gradcheck_sweep\ndef test_it():\n"
    (tmp_path / "test_it.py").write_text(f"{marked}    assert 'jax' not in sys.modules\n")
    done = run_apart(tmp_path, "-p", "no:xdist", "--strict-markers", "test_it.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_can_be_left_out(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it(gradcheck):\n    pass\n")
    done = run_apart(tmp_path, "-p", "no:funcnn", "test_it.py")
    assert "fixture 'gradcheck' not found" in done.stdout, done.stdout + done.stderr


def test_the_marker_has_its_keywords(pytester):
    pytester.makepyfile("import pytest\n@pytest.mark.gradcheck_sweep([(2, 3)])\ndef test_it(gradcheck):\n    pass\n")
    result = run_inner(pytester)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*expected the keywords shapes, dtypes and options*"])
