"""Equations as MathML, which browsers lay out themselves: no script, no network."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def _convert(node: Any, as_block: bool) -> str:
    tex = re.sub(r"(begin|end)\{align\*?\}", r"\1{aligned}", node.astext())
    try:
        if re.search(r"\\[dt]?frac\s*[^\s{]", tex):
            raise MathError("numbers of a fraction stand in braces, \\frac{1}{2}")
        return tex2mathml(tex, as_block=as_block)
    except MathError as error:
        raise ExtensionError(f"{node.source}:{node.line}: the equation {tex!r} has no MathML: {error}") from error


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_convert(node, as_block=False))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    number = f'<span class="eqno">({node["number"]})</span>' if node["number"] else ""
    equation = f'<div class="equation">{_convert(node, as_block=True)}</div>'
    writer.body.append(f"{writer.starttag(node, 'div', CLASS='math')}{equation}{number}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
