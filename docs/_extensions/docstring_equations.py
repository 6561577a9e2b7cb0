"""Equations of docstrings as mathematics.

Docstrings hold their equations in Unicode, so that ``help`` and an editor show them. This extension sets them on the
site. In prose it looks for stretches that are a whole expression and hold a relation, or an operator beside a letter
that isn't ASCII. A block after ``::`` whose lines hold a relation is a display. What is no expression stays as written.
"""

import re

from experiments.harness.equations.plain_math import parsed
from experiments.harness.equations.prose import Equation, equations_of, pieces_of

# Prose ----------------------------------------------------------------------------------------------------------------


def set_in_prose(text: str) -> str:
    """Return a line of prose with its equations as ``:math:`…```; code, titles and emphasis stay as they are."""
    return "".join(_set_in_plain(piece) if is_plain else piece for piece, is_plain in pieces_of(text))


def _set_in_plain(text: str) -> str:
    return "".join(
        f":math:`{piece.latex.strip()}`" if isinstance(piece, Equation) else _escaped(piece)
        for piece in equations_of(text)
    )


def _escaped(text: str) -> str:
    """Return text in which a bar begins no substitution."""
    return text.replace("|", r"\|")


# Blocks ---------------------------------------------------------------------------------------------------------------


CODE_LINE = re.compile(r"^\s*(>>>|def |import |\$ )|[A-Za-z]\.[a-z]+\(")
"""A statement, or a call of a method, ``f.forward(x)``."""


def set_block(lines: list[str]) -> list[str] | None:
    """Return a display of the lines of a literal block, ``None`` where they are no equations."""
    rows, count = [], 0
    for line in lines:
        cells = []
        # Spaces in front of a relation align it with that of the line above.
        for chunk in re.split(r"\s{2,}", re.sub(r"\s+([=←≈])", r" \1", line.strip())):
            pieces, equations = _row_of(chunk)
            cells.append(pieces)
            count += equations
        rows.append(cells)
    if not count or any(CODE_LINE.search(line) for line in lines):
        return None
    width = max(map(len, rows))
    body = [" & ".join(row + [""] * (width - len(row))) for row in rows]
    table = [f"   {row} \\\\" for row in body]
    return [".. math::", "", rf"   \begin{{array}}{{{'l' * width}}}", *table, r"   \end{array}"]


def _row_of(chunk: str) -> tuple[str, int]:
    """Return a cell as LaTeX, words as text, with the number of its equations."""
    found = parsed(chunk)
    if found is not None:
        return found.latex, int(found.has_relation)
    if "," in chunk and all(parsed(part.strip()) for part in chunk.rstrip(",").split(", ")):
        parts = [parsed(part.strip()) for part in chunk.rstrip(",").split(", ")]
        end = "," if chunk.endswith(",") else ""
        return r",\quad ".join(part.latex for part in parts) + end, sum(part.has_relation for part in parts)
    marked = _set_in_plain(chunk)
    latex, equations, at = "", 0, 0
    for match in re.finditer(r":math:`([^`]*)`", marked):
        words = marked[at : match.start()]
        latex += (rf"\text{{{_words(words)}}}" if words else "") + match.group(1)
        equations, at = equations + 1, match.end()
    rest = marked[at:]
    return latex + (rf"\text{{{_words(rest)}}}" if rest else ""), equations


def _words(text: str) -> str:
    return re.sub(r"([&%#{}])", r"\\\1", text)


# Docstrings -----------------------------------------------------------------------------------------------------------

SECTION = re.compile(r"(Args|Returns|Raises|Warns|Example|Examples|Source|Fields|Attributes|Yields|Words):\s*$")
UNTOUCHED = ("Example", "Examples", "Source")


def set_docstring(lines: list[str]) -> list[str]:
    """Return a docstring in Google's style with its equations set."""
    joined, result, number, section = _joined(lines), [], 0, ""
    while number < len(joined):
        line = joined[number]
        if match := SECTION.match(line.strip()):
            section = match.group(1)
        if section in UNTOUCHED or match:
            result.append(line)
            number += 1
        elif line.rstrip().endswith("::"):
            block, number = _block_after(joined, number + 1)
            display = set_block(block)
            if display is None:
                result += [line, "", *(f"    {part}" for part in block), ""]
            else:
                indent = line[: len(line) - len(line.lstrip())]
                result += [set_in_prose(line.rstrip()[:-1]), "", *(indent + part for part in display), ""]
        else:
            result.append(set_in_prose(line))
            number += 1
    return result


def _joined(lines: list[str]) -> list[str]:
    """Join the lines of each paragraph, and of each entry of a section, so that no equation is cut by a line's end."""
    result: list[str] = []
    section, in_block = "", False
    for line in lines:
        text = line.strip()
        if match := SECTION.match(text):
            section, in_block = match.group(1), False
        indent = len(line) - len(line.lstrip())
        previous = result[-1] if result else ""
        if in_block and text and indent == 0:
            in_block = False
        starts_new = (
            not text or not previous.strip() or match is not None or in_block or section in UNTOUCHED
            or SECTION.match(previous.strip()) is not None or text.startswith((">>>", "- ", "* "))
        )  # fmt: skip
        previous_indent = len(previous) - len(previous.lstrip())
        # An entry of a section goes on in deeper lines; a paragraph, and what is returned, in lines of its own depth.
        is_entry = section not in ("", "Returns")
        continues = indent > previous_indent or (indent == previous_indent and not is_entry)
        if continues and not starts_new:
            result[-1] = f"{previous.rstrip()} {text}"
        else:
            result.append(line)
        if text.endswith("::"):
            in_block = True
    return result


def _block_after(lines: list[str], number: int) -> tuple[list[str], int]:
    """Return the lines of the literal block from a line on, and the number of the line after it."""
    block: list[str] = []
    while number < len(lines) and (not lines[number].strip() or lines[number].startswith(" ")):
        if lines[number].strip():
            block.append(lines[number].strip("\n"))
        number += 1
    indent = min((len(line) - len(line.lstrip()) for line in block), default=0)
    return [line[indent:] for line in block], number


def process_docstring(app, what, name, obj, options, lines) -> None:
    """Set the equations of a docstring in place, before Napoleon reads its sections."""
    lines[:] = set_docstring(list(lines))


def setup(app):
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    return {"parallel_read_safe": True}
