"""Equations in the report's prose are set as MathML, and nothing else is."""

import html
import re

import pytest

from experiments.harness.report import page
from experiments.harness.report.mathematics import set_equations
from experiments.harness.report.stories import STORIES
from experiments.harness.topics import load, topic_names


def set_in(text):
    """Return the equations that are set in a text, as they are written there."""
    return [html.unescape(found) for found in re.findall(r'alttext="([^"]*)"', set_equations(text))]


@pytest.mark.parametrize(
    ("text", "equations"),
    [
        ("x² + 3y²", ["x² + 3y²"]),
        ("Optimizers on x² + 3 y², from (4, 3).", ["x² + 3 y²"]),
        ("until the mean of ½ (y − d)² is 0.01", ["½ (y − d)²"]),
        ("Squared error: 2 (1 − p)² p; cross-entropy: 1 − p.", ["2 (1 − p)² p", "1 − p"]),
        ("backward: ∂L/∂activation and ∂L/∂weight", ["∂L/∂activation", "∂L/∂weight"]),
        ("log₁₀ of |∂L/∂x| 100 steps before", ["|∂L/∂x|"]),
        ("with 0.01·N(0, 1) 0.10, with N(0, 1) too", ["0.01·N(0, 1)", "N(0, 1)"]),
        ("With U[−1/√n, 1/√n] a layer's slope", ["U[−1/√n, 1/√n]"]),
        ("the size of s² and β₁ 0.9", ["s²", "β₁"]),
        ("largest |∂y[t]/∂x[s]| for s > t", ["|∂y[t]/∂x[s]|", "s > t"]),
        ("(x² + y²)/20 + (2 − cos 2πx − cos 2πy)/20", ["(x² + y²)/20 + (2 − cos 2πx − cos 2πy)/20"]),
        ("x W1 + b1", ["x W1 + b1"]),
        ("it gets 10^-17.0 of it", ["10^-17.0"]),
    ],
)
def test_equations_are_found(text, equations):
    assert set_in(text) == equations


@pytest.mark.parametrize(
    "text",
    [
        "",
        "On 8 × 8 digits, 2 → 3 → 1 units, 28·28 pixels.",
        "tanh + 1, the same curve lifted, and ReLU + He + skip",
        "a layer - or two - of a network/model",
        "fnn.fit(monitor=True) and conv2d(1, 8, 5, stride=2)",
        "linear(28·28, 14·14·8)",
        "Call ``f(x = 1)``; I am a word.",
        "6.55e+04",
        "ln 8 = 2.08 by chance, 0 ≤ 1",
        "falls at least as fast as 1/units",
        "it answers ½ to everything",
        "A/B tests, R&D, and/or",
    ],
)
def test_words_code_and_numbers_stay(text):
    assert set_equations(text) == html.escape(text).replace("&#x27;", "&#39;")


def test_the_rest_is_escaped():
    found = str(set_equations('<b> & "s > t" y < z'))
    assert found.startswith('&lt;b&gt; &amp; &#34;s &gt; t&#34; <math alttext="y &lt; z"')


def test_a_mark_stays_with_its_equation():
    assert "</math>&#8288;, and" in set_equations("with y = x, and")
    assert "</math> and" in set_equations("with y = x and")


def test_a_screen_reader_gets_mathematics():
    found = set_equations("∂L/∂w")
    assert re.match(r'<math alttext="∂L/∂w" [^>]*><mrow><mfrac>', found)
    assert "aria-hidden" not in found


@pytest.mark.parametrize(("text", "signs"), [("z = −2", 1), ("z = x − 2", 0), ("U[−1, 1] − y", 1), ("|x| − y = 1", 0)])
def test_a_sign_is_no_difference(text, signs):
    assert set_equations(text).count('<mo form="prefix">&#x02212;</mo>') == signs


def test_a_wide_equation_scrolls():
    wide = set_equations("y = (x² + y²)/20 + (2 − cos 2πx − cos 2πy)/20")
    assert wide.startswith('<span class="math-wide"><math ')
    assert ".math-wide" in (page.HERE / "page.css").read_text(encoding="utf-8")


def texts(name):
    experiment = load(name)
    claims = [text for claim in experiment.claims for text in (claim.sentence, claim.quantity)]
    return [experiment.introduction, *(part.title for part in experiment.parts), *claims]


@pytest.mark.parametrize("name", topic_names())
def test_no_equation_of_a_topic_holds_a_word(name):
    """Words that are set are functions and the names of what a derivative is by."""
    for text in texts(name):
        for equation in set_in(text):
            assert set(re.findall(r"[A-Za-z]{3,}", equation)) <= {"log", "n_in", "n_out", "out"}, text


def test_topics_have_equations():
    assert sum(len(set_in(text)) for name in topic_names() for text in texts(name)) > 25
    assert any(set_in(story.finding) for story in STORIES)


def test_the_page_sets_equations(tmp_path):
    finding = {
        "name": "a-claim", "sentence": "On x² + 3y² it falls.", "quantity": "the size of ∂L/∂w", "source": "",
        "section": "4. Forward propagation", "threshold": "at most 1", "at_most": 1.0, "statistic": "exact",
        "estimate": 0.5, "low": 0.5, "high": 0.5, "verdict": "holds", "remark": "", "seeds": 1,
    }  # fmt: skip
    part = {
        "title": "A part", "text": "Here p < q.", "board": "", "figures": [], "tables": [], "findings": [finding],
        "failure": "", "seconds": 1.0,
        "environment": dict.fromkeys(("device", "cores", "system", "jax", "python"), "1"),
    }  # fmt: skip
    record = {
        "name": "nothing", "title": "Nothing", "introduction": "The mean of ½ (y − d)².", "parts": [part],
        "settings": {"full": False, "grad": "manual"}, "precision": "float32", "command": "none",
    }  # fmt: skip
    written = page.write_report([record], tmp_path).read_text(encoding="utf-8")
    found = [html.unescape(one) for one in re.findall(r'<math alttext="([^"]*)"', written)]
    assert found == ["x² + 3y²", "½ (y − d)²", "x² + 3y²", "∂L/∂w", "p < q"]
