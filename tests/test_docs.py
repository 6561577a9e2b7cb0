"""The site's own code: no public name is missing, equations are set as they are meant, pages find what they include."""

import ast
import builtins
import doctest
import fnmatch
import inspect
import re
from pathlib import Path

import pytest

import funcnn as fnn
from experiments.harness.equations.plain_math import to_latex

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(file for file in DOCS.rglob("*.md") if "generated" not in file.parts and "_build" not in file.parts)
NOTEBOOKS = [page for page in PAGES if "{code-cell}" in page.read_text(encoding="utf-8")]


@pytest.fixture
def extension(monkeypatch):
    """Import a module of docs/_extensions."""
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    return lambda name: __import__(name)


def test_every_public_name_has_its_entry(extension):
    reference = extension("reference")
    groups = reference.public_groups()
    documented = [name for group in groups for name in group.names]
    imported = [
        alias.asname or alias.name
        for statement in ast.parse(Path(fnn.__file__).read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    ]
    assert len(imported) > 100
    modules = {name.partition(".")[0] for name in documented if "." in name}
    assert {name for name in documented if "." not in name} == set(imported) - modules
    assert modules <= set(imported)
    for group in groups:
        page = reference.page(group)
        for name in group.names:
            entries = re.findall(
                rf"^\.\. (?:autoclass|autofunction|py:data):: funcnn\.{re.escape(name)}(?:\(.*\))?$", page, re.M
            )
            assert len(entries) == 1, name


def test_every_page_of_the_reference_is_in_its_contents(extension):
    contents = re.findall(r"^   generated/(\S+)$", (DOCS / "reference" / "index.rst").read_text(encoding="utf-8"), re.M)
    for group in extension("reference").public_groups():
        assert sum(fnmatch.fnmatch(group.module, entry) for entry in contents) == 1, group.module


def test_every_entry_says_something(extension):
    reference = extension("reference")
    for group in reference.public_groups():
        for name in group.names:
            value = reference.value_of(name)
            if isinstance(value, fnn.Layer | fnn.Loss | fnn.Scaler):
                assert len("".join(reference.entry(name))) > 150, name
            else:
                assert value.__doc__, name


@pytest.mark.parametrize(
    ("plain", "latex"),
    [
        ("y = x K + b", r"y = x\,K + b"),
        ("a = z/(1 + |z|)", r"a = \frac{z}{1 + \left|z\right|}"),
        ("y = γ (x − μ)/√(σ² + ε) + β", r"y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^{2} + \epsilon}} + \beta"),
        ("∂L/∂K[i,j] = Σₙ x[n,i] dy[n,j]",
         r"\frac{\partial L}{\partial K_{i, j}} = \sum_{n} x_{n, i}\,\text{d}y_{n, j}"),
        ("u = −α m̂/(√(v̂ + ε_root) + ε)",
         r"u = -\alpha\,\frac{\hat{m}}{\sqrt{\hat{v} + \epsilon_{\text{root}}} + \epsilon}"),
        ("E[y] = x", "E[y] = x"),
        ("m̂ = m/(1 − β₁ᵗ)", r"\hat{m} = \frac{m}{1 - \beta_{1}^{t}}"),
        ("∂a/∂z = aᵢ (1[i = j] − aⱼ)", r"\frac{\partial a}{\partial z} = a_{i}\,\left(1[i = j] - a_{j}\right)"),
        ("tanh′(z) = 1 − tanh²(z)", r"\tanh'\left(z\right) = 1 - \tanh^{2}\left(z\right)"),
        ("L = y log p", r"L = y\,\log\,p"),
        ("W1 + b1", "W_{1} + b_{1}"),
        ("½ (y − d)²", r"\frac{1}{2}\,\left(y - d\right)^{2}"),
        ("8s/3π", r"8\,\frac{s}{3\,\pi }"),
        ("log ∂L/∂z", r"\log\,\frac{\partial L}{\partial z}"),
        ("U[−1, 1]", "U[-1, 1]"),
        ("W1[0, 1] = x", "W_{1}[0, 1] = x"),
        ("x ← x + layer_norm(x)", r"x \leftarrow x + \text{layer_norm}\left(x\right)"),
        ("y = concat(headₕ) K_o", r"y = \operatorname{concat}\left(\text{head}_{h}\right)\,K_{o}"),
        ("dz = da silu′(z)", r"\text{d}z = \text{d}a\,\operatorname{silu}'\left(z\right)"),
        ("∂L/∂x[n, q] = Σₖ dy[n, p] 1[k = kₚ]",
         r"\frac{\partial L}{\partial x_{n, q}} = \sum_{k} \text{d}y_{n, p}\,1[k = k_{p}]"),
    ],
)  # fmt: skip
def test_expressions_are_set(plain, latex):
    # Spaces mean nothing in LaTeX's mathematics, except between the name of a command and a letter.
    found = to_latex(plain)
    assert re.sub(r" +(?![A-Za-z])", "", found) == re.sub(r" +(?![A-Za-z])", "", latex)


@pytest.mark.parametrize("text", ["", "a layer", "x =", "(x", "x) + y", "the sum of x", "do = it", "f(x", "[0, 1)"])
def test_what_is_no_expression_is_left(text):
    assert to_latex(text) is None


@pytest.mark.parametrize(
    ("prose", "expected"),
    [
        ("A layer, y = x K + b, with a bias.", r"A layer, :math:`y = x\,K + b`, with a bias."),
        ("a = z where z > 0, else 0.", ":math:`a = z` where :math:`z > 0`, else 0."),
        ("Call ``f(x = 1)`` and a layer.", "Call ``f(x = 1)`` and a layer."),
        ("Names of a model, 8 of them - all.", "Names of a model, 8 of them - all."),
    ],
)
def test_prose_keeps_its_words(extension, prose, expected):
    assert extension("docstring_equations").set_in_prose(prose) == expected


def test_code_blocks_and_examples_stay(extension):
    lines = ["Words::", "", "    y, r = f.forward(x)", "", "Example:", "    >>> y = x + 1"]
    assert extension("docstring_equations").set_docstring(lines)[-1] == "    >>> y = x + 1"
    assert "math" not in " ".join(extension("docstring_equations").set_docstring(lines))


def test_activations_and_losses_have_equations(extension):
    setter = extension("docstring_equations").set_docstring
    forwards = [name for name in dir(fnn) if name.endswith("_forward")]
    assert len(forwards) > 15
    docstrings = {name: inspect.cleandoc(getattr(fnn, name).__doc__).splitlines() for name in forwards}
    without = [name for name, lines in docstrings.items() if not re.search(r":math:|math::", "\n".join(setter(lines)))]
    assert without == []


def test_examples_of_the_reference_use_names_that_a_reader_has(extension):
    """Those of the libraries that the reference names, public ones, and what the example itself defines."""
    reference = extension("reference")
    given = {"jax", "jnp", "np", "optax", *dir(fnn), *dir(builtins)}
    for name in (name for group in reference.public_groups() for name in group.names):
        examples = doctest.DocTestParser().get_examples(inspect.getdoc(reference.value_of(name)) or "")
        nodes = list(ast.walk(ast.parse("".join(example.source for example in examples))))
        own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        own |= {alias.asname or alias.name for node in nodes for alias in getattr(node, "names", ())}
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        assert used <= given | own, (name, used - given - own)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_includes_find_their_marks(page):
    for target, options in re.findall(r"```\{include\} (\S+)\n((?::.*\n)*)", page.read_text(encoding="utf-8")):
        file = (page.parent / target).resolve()
        if "generated" in file.parts:
            assert file.stem in ("speed", "scaling", "causes", "errata")
            continue
        text = file.read_text(encoding="utf-8")
        for mark in re.findall(r':(?:start-after|end-before): "(.*)"', options):
            assert text.count(mark) == 1, mark


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda page: page.stem)
def test_notebooks_hold_code_for_this_library(notebook):
    cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", notebook.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = {
        node.attr
        for node in ast.walk(ast.parse("\n".join(cells)))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "fnn"
    }
    assert names
    assert [name for name in names if not hasattr(fnn, name)] == []


def hand_written(is_meant):
    """Return the names in funcnn's column of the lists on the page of hand-written backward passes."""
    page = (DOCS / "hand_written.md").read_text(encoding="utf-8")
    lists = page.partition("## The lists")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in lists.splitlines() if line.startswith("|")]
    return [name for kind, cell in rows if is_meant(kind.strip()) for name in re.findall(r"`(\w+)`", cell)]


APART = ("combinators", "optimizers")


def test_the_page_of_hand_written_backward_passes_lists_every_one():
    listed = hand_written(lambda kind: kind not in APART)
    pairs = {name.removesuffix("_backward") for name in dir(fnn) if name.endswith("_backward")}
    assert len(listed) == len(set(listed))
    assert set(listed) == pairs
    assert all(hasattr(fnn, f"{name}_forward") for name in pairs)
    page = (DOCS / "hand_written.md").read_text(encoding="utf-8")
    assert f"funcnn has {len(pairs)} backward passes" in page
    assert f"not among the {len(pairs)}:" in page


def test_the_page_of_hand_written_backward_passes_lists_every_combinator_and_optimizer():
    imported = {
        alias.name: statement.module
        for statement in ast.parse(Path(fnn.__file__).read_text(encoding="utf-8")).body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    pairs = {name for name in imported if hasattr(fnn, f"{name}_backward")}
    plain = {name for name in imported if name.endswith(("_forward", "_backward"))}
    layers = {name for name, module in imported.items() if module.startswith("funcnn.layers.") and name[0].islower()}
    assert set(hand_written(lambda kind: kind == "combinators")) == layers - pairs - plain - {"activation_layer"}
    optimizers = {name for name, module in imported.items() if module == "funcnn.optimizers"}
    transformations = {"add_decayed_weights", "clip_by_global_norm", "clip_by_value"}
    assert set(hand_written(lambda kind: kind == "optimizers")) == optimizers - transformations
