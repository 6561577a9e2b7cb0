"""Mathematics as MathML, made when the site is built: browsers draw it without a script and without a request."""

from docutils import nodes

from experiments.harness.equations.mathml import WORD_JOINER, inline, to_mathml
from experiments.harness.equations.prose import ENDINGS


def visit_inline(translator, node) -> None:
    after = node.next_node(nodes.Text, descend=False, siblings=True)
    joiner = WORD_JOINER if after is not None and after.astext().startswith(tuple(ENDINGS)) else ""
    translator.body.append(inline(node.astext()) + joiner)
    raise nodes.SkipNode


def visit_block(translator, node) -> None:
    translator.body.append(f'<div class="math-display">{to_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True}
