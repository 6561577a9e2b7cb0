"""Mathematics as MathML, made when the site is built: browsers draw it without a script and without a request."""

import re

from docutils import nodes
from latex2mathml.converter import convert

LONGEST_LINE = 20
"""Characters of a formula that fit into a line of a phone."""


def to_mathml(latex: str, display: str) -> str:
    """Return LaTeX as a ``math`` element; tables have fractions and sums of full size."""
    return re.sub(r"<mtable\b", '<mtable displaystyle="true"', convert(latex, display=display))


def visit_inline(translator, node) -> None:
    latex = node.astext()
    mathml = to_mathml(latex, "inline")
    # A browser breaks no line inside a formula: on a phone a wide one scrolls.
    is_wide = len(re.sub(r"\\[a-zA-Z]+|[{}_^ ]", "", latex)) > LONGEST_LINE
    after = node.next_node(nodes.Text, descend=False, siblings=True)
    joiner = "&#8288;" if after is not None and after.astext()[:1] in ".,;:)" else ""
    translator.body.append((f'<span class="math-wide">{mathml}</span>' if is_wide else mathml) + joiner)
    raise nodes.SkipNode


def visit_block(translator, node) -> None:
    translator.body.append(f'<div class="math-display">{to_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True}
