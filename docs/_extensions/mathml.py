"""Mathematics as MathML, made when the site is built: browsers draw it without a script and without a request."""

from docutils import nodes

from experiments.harness.equations.mathml import inline, to_mathml


def visit_inline(translator, node) -> None:
    after = node.next_node(nodes.Text, descend=False, siblings=True)
    joiner = "&#8288;" if after is not None and after.astext()[:1] in ".,;:)" else ""
    translator.body.append(inline(node.astext()) + joiner)
    raise nodes.SkipNode


def visit_block(translator, node) -> None:
    translator.body.append(f'<div class="math-display">{to_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True}
