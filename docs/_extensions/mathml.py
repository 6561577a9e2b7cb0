"""Mathematics as MathML, made when the site is built: browsers draw it without a script and without a request."""

import re

from docutils import nodes
from latex2mathml.converter import convert


def to_mathml(latex: str, display: str) -> str:
    """Return LaTeX as a ``math`` element; tables have fractions and sums of full size."""
    return re.sub(r"<mtable\b", '<mtable displaystyle="true"', convert(latex, display=display))


def visit_inline(translator, node) -> None:
    translator.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(translator, node) -> None:
    # Wide displays scroll on a phone, and a reader without a mouse scrolls them by the keyboard.
    translator.body.append(
        '<div class="math-display" tabindex="0" role="group" aria-label="equation">'
        f"{to_mathml(node.astext(), 'block')}</div>\n"
    )
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True}
