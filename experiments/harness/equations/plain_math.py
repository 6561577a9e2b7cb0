"""Expressions in plain text, such as ``y = γ x̂ + β``, as LaTeX: a parser for the notation of the docstrings.

    expression  sum (relation sum)*
    sum         [sign] product (sign product)*
    product     factor (· factor | / factor | factor)*
    factor      ∂ factor | √ factor | Σ factor | atom (superscript | subscript | ^ factor | [indices] | ′)*
    atom        number | letter | function (arguments) | (expression) | |expression| | ‖expression‖

What is no expression of this grammar is no mathematics: the parser then returns ``None``.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

LETTERS = {
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\epsilon", "θ": r"\theta", "λ": r"\lambda",
    "μ": r"\mu", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau", "φ": r"\phi", "Φ": r"\Phi", "ψ": r"\psi",
    "η": r"\eta", "ω": r"\omega", "ν": r"\nu", "κ": r"\kappa", "ξ": r"\xi", "Δ": r"\Delta", "Ω": r"\Omega",
    "∞": r"\infty", "∇": r"\nabla", "⊙": r"\odot",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "¼": r"\frac{1}{4}",
}  # fmt: skip
RELATIONS = {
    "=": "=", "←": r"\leftarrow", "≈": r"\approx", "≤": r"\le", "≥": r"\ge", "<": "<", ">": ">", "~": r"\sim",
    "∈": r"\in", "≠": r"\ne", "→": r"\to", "∝": r"\propto",
}  # fmt: skip
SIGNS = {"+": "+", "−": "-", "-": "-", "±": r"\pm"}
TIMES = {"·": r"\cdot ", "×": r"\times ", "∗": r"* ", "⊙": r"\odot ", "∘": r"\circ "}
FUNCTIONS = {
    "log", "exp", "tanh", "max", "min", "cosh", "sinh", "cos", "sin", "log1p", "expm1", "mean", "sign", "softmax",
    "sigmoid", "erf", "var", "wide", "logsumexp", "argmax", "Bernoulli", "clip", "sum", "floor", "round", "norm",
    "arctan2", "ln", "sqrt", "relu", "silu", "gelu", "rows", "diag", "backward", "forward", "concat", "ReLU",
}  # fmt: skip
KNOWN_TO_LATEX = {"log", "ln", "exp", "tanh", "max", "min", "cosh", "sinh", "cos", "sin"}
DIFFERENTIALS = re.compile(r"d[a-zA-Zθβγαμσ]$")
NO_DIFFERENTIALS = {"do"}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ᵗⁿᵀᶻˣʲⁱᵏᵃᵇʰᵐ", "0123456789+-()tnTzxjikabhm", strict=True)) | {"ᵘ": "u", "ᵈ": "d"}
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ᵢⱼₙₖₜₘₚₛₐₑₓₕ꜀ₒ", "0123456789+-ijnktmpsaexhco", strict=True))
INDICES = {"…": r"\ldots", ":": ":"}
HATS = {"\u0302": r"\hat", "\u0304": r"\bar", "\u0303": r"\tilde"}
TOKEN = re.compile(
    r"(?P<number>\d+(?:[.,]\d+)*(?:e[-−]?\d+)?)|(?P<word>[^\W\d_](?:[^\W\d_]|[\u0300-\u036f]|_(?=\w)|(?<=[a-z])\d(?=[a-z]))*)"
    r"|(?P<symbol>\S)|(?P<space>\s+)"
)


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


class NotMathematicsError(ValueError):
    """The text isn't an expression of the grammar."""


def tokens_of(text: str) -> list[Token]:
    """Return the tokens of a text: numbers, letters with their accents, symbols."""
    found: list[Token] = []
    for match in TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "word" and match.group()[0] in LETTERS and match.group()[1:].isascii() and len(match.group()) == 2:
            # A Greek letter times another, as in 2πx.
            found.extend(
                Token(kind, letter, match.start() + place, match.start() + place + 1)
                for place, letter in enumerate(match.group())
            )
        elif kind == "word":
            found.extend(_letters(match.group(), match.start()))
        elif kind != "space":
            found.append(Token(kind, match.group(), match.start(), match.end()))
    return found


def _letters(word: str, start: int) -> Iterator[Token]:
    """Split a word at superscripts and subscripts, which Unicode counts as letters."""
    piece = ""
    for place, character in enumerate(word):
        if character in SUPERSCRIPTS or character in SUBSCRIPTS:
            if piece:
                yield Token("word", piece, start + place - len(piece), start + place)
            piece = ""
            yield Token("symbol", character, start + place, start + place + 1)
        else:
            piece += character
    if piece:
        yield Token("word", piece, start + len(word) - len(piece), start + len(word))


def is_letter(word: str) -> bool:
    """Whether a word is a variable: one letter, a differential such as dx or dx̂, or either with an index."""
    base, _, index = word.partition("_")
    plain = "".join(
        character for character in unicodedata.normalize("NFD", base) if not unicodedata.combining(character)
    )
    has_index = not index or index.isalnum()
    is_differential = bool(DIFFERENTIALS.match(plain)) and plain not in NO_DIFFERENTIALS
    return has_index and (len(plain) == 1 or is_differential or (bool(index) and plain in ("ε",)))


class Parser:
    """A recursive-descent parser from tokens to LaTeX."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens, self.place = tokens, 0
        self.has_relation = self.has_operator = self.has_call = False
        self.bars: list[str] = []

    def peek(self) -> str:
        return self.tokens[self.place].text if self.place < len(self.tokens) else ""

    def next(self) -> Token:
        if self.place >= len(self.tokens):
            raise NotMathematicsError("the expression ends too early")
        self.place += 1
        return self.tokens[self.place - 1]

    def expect(self, text: str) -> None:
        if self.next().text != text:
            raise NotMathematicsError(f"expected {text}")

    def expression(self) -> str:
        latex = self.sum()
        while self.peek() in RELATIONS:
            before = self.place
            relation = self.next()
            self.has_relation = True
            try:
                latex += f" {RELATIONS[relation.text]} {self.sum()}"
            except NotMathematicsError:
                self.place = before
                raise
        return latex

    def sum(self) -> str:
        latex = SIGNS[self.next().text] if self.peek() in SIGNS else ""
        latex += self.product()
        while self.peek() in SIGNS:
            sign = self.next().text
            self.has_operator = True
            latex += f" {SIGNS[sign]} {self.product()}"
        return latex

    def product(self) -> str:
        latex, last = "", self.factor()
        while True:
            symbol = self.peek()
            if symbol in TIMES:
                self.next()
                self.has_operator = True
                latex, last = f"{latex}{last} {TIMES[symbol]}", self.factor()
            elif symbol == "/" and self.tokens[self.place - 1].text != "∂":
                self.next()
                self.has_operator = True
                last = rf"\frac{{{_bare(last)}}}{{{self.denominator()}}}"
            elif self.starts_factor():
                self.has_operator = True
                latex, last = f"{latex}{last}\\,", self.factor()
            else:
                return latex + last

    def denominator(self) -> str:
        """Return what is divided by: a factor, and letters that touch it, as in s/3π."""
        latex = _bare(self.factor())
        while self.place < len(self.tokens) and self.touches() and self.is_variable(self.place):
            latex += rf"\,{self.factor()}"
        return latex

    def is_variable(self, place: int) -> bool:
        return self.tokens[place].kind == "word" and is_letter(self.tokens[place].text)

    def starts_factor(self) -> bool:
        if self.place >= len(self.tokens):
            return False
        token = self.tokens[self.place]
        if token.kind == "number":
            # A number after a space is a value beside a name, as in "rate α 0.1"; 1[i = j] is an indicator.
            return self.touches() or [one.text for one in self.tokens[self.place : self.place + 2]] == ["1", "["]
        if token.kind == "word":
            return (
                is_letter(token.text)
                or (token.text in FUNCTIONS and self.is_call(self.place))
                or self.is_named(self.place)
            )
        return token.text in "∂√Σ∏(⌊" or (token.text in "|‖" and token.text not in self.bars)

    def is_call(self, place: int) -> bool:
        following = self.tokens[place + 1 : place + 2]
        if not following:
            return False
        argument = following[0]
        is_named = argument.kind == "word" and (is_letter(argument.text) or argument.text in FUNCTIONS)
        return argument.text in "(ₙᵢⱼₖ²′" or argument.kind == "number" or is_named

    def is_named(self, place: int) -> bool:
        """Whether a word is a quantity: in an index, beside a dot or an arrow, called, or indexed."""
        before = self.tokens[place - 1].text if place else ""
        after = self.tokens[place + 1] if place + 1 < len(self.tokens) else None
        touches = after is not None and after.start == self.tokens[place].end
        return (
            "]" in self.bars or before in TIMES or before == "∂" or (before == "/" and self.has_relation)
            or (touches and (after.text in "([^" or after.text in SUBSCRIPTS))
            or (after is not None and (after.text in TIMES or after.text == "←"))
            or (before in SIGNS and after is not None and after.text == ")")
        )  # fmt: skip

    def factor(self) -> str:
        token = self.next()
        if token.text == "∂" and self.peek() == "/":
            self.next()
            self.expect("∂")
            return rf"\frac{{\partial}}{{\partial {self.factor()}}}"
        if token.text == "∂":
            latex = rf"\partial {self.factor()}"
            if [one.text for one in self.tokens[self.place : self.place + 2]] != ["/", "∂"]:
                return latex
            self.next()
            self.has_operator = True
            return rf"\frac{{{latex}}}{{{self.factor()}}}"
        if token.text == "√":
            return rf"\sqrt{{{_bare(self.factor())}}}"
        if token.text in "Σ∏":
            sign = r"\sum" if token.text == "Σ" else r"\prod"
            index = self.scripts(SUBSCRIPTS)
            return (rf"{sign}_{{{index}}} " if index else f"{sign} ") + self.factor()
        return self.postfix(self.atom(token))

    def atom(self, token: Token) -> str:
        if token.kind == "number":
            return _number(token.text)
        if token.kind == "word":
            return self.named(token)
        if token.text in INDICES and self.bars[-1:] == ["]"]:
            return INDICES[token.text]
        closing = {"(": ")", "|": "|", "‖": "‖", "⌊": "⌋"}.get(token.text)
        if closing is None:
            raise NotMathematicsError(f"{token.text} starts no expression")
        self.has_operator = self.has_operator or token.text in "|‖"
        self.bars.append(closing)
        inside = self.arguments(closing)
        self.bars.pop()
        names = {"(": ("(", ")"), "|": ("|", "|"), "‖": (r"\|", r"\|"), "⌊": (r"\lfloor ", r"\rfloor ")}[token.text]
        return rf"\left{names[0]}{inside}\right{names[1]}"

    def named(self, token: Token) -> str:
        if is_letter(token.text):
            return _letter(token.text) + self.number_as_index()
        if token.text not in FUNCTIONS and self.is_named(self.place - 1):
            return self.quantity(token)
        if token.text not in FUNCTIONS:
            raise NotMathematicsError(f"{token.text} is a word")
        name = f"\\{token.text}" if token.text in KNOWN_TO_LATEX else rf"\operatorname{{{token.text}}}"
        index = self.scripts(SUBSCRIPTS)
        power = self.scripts(SUPERSCRIPTS)
        name += (f"_{{{index}}}" if index else "") + (f"^{{{power}}}" if power else "")
        if self.peek() == "′":
            self.next()
            name += "'"
        if self.peek() == "(":
            self.next()
            return rf"{name}\left({self.arguments(')')}\right)"
        return rf"{name}\,{self.factor()}"

    def number_as_index(self) -> str:
        """Return a number that touches a letter as its index, as in W1."""
        if not self.peek().isdecimal() or not self.touches():
            return ""
        return f"_{{{self.next().text}}}"

    def quantity(self, token: Token) -> str:
        """Return a word that names a quantity or a function, with its arguments."""
        name = rf"\text{{{token.text}}}"
        if self.peek() == "(" and self.touches():
            self.next()
            self.bars.append(")")
            inside = self.arguments(")")
            self.bars.pop()
            return rf"{name}\left({inside}\right)"
        return name

    def arguments(self, closing: str) -> str:
        parts = [self.expression()]
        while self.peek() in (",", ";"):
            self.next()
            parts.append(self.expression())
        self.expect(closing)
        return ", ".join(parts)

    def postfix(self, latex: str) -> str:
        while True:
            if power := self.scripts(SUPERSCRIPTS):
                latex = f"{latex}^{{{power}}}"
            elif index := self.scripts(SUBSCRIPTS):
                latex = f"{latex}_{{{index}}}"
            elif self.peek() in ("′", "'"):
                self.next()
                latex = f"{latex}'"
            elif self.peek() == "^":
                self.next()
                sign = SIGNS[self.next().text] if self.peek() in SIGNS else ""
                latex = f"{latex}^{{{sign}{_bare(self.factor())}}}"
            elif self.peek() == "[" and self.touches():
                self.next()
                self.bars.append("]")
                inside = self.arguments("]")
                self.bars.pop()
                # E[y] is an expectation, 1[i = j] an indicator, U[0, 1] a distribution; W₁[i] has its index already.
                is_condition = (
                    latex in ("1", "E", "U")
                    or "_{" in latex
                    or any(relation in inside for relation in ("=", "<", ">", r"\le"))
                )
                latex = rf"{latex}[{inside}]" if is_condition else f"{latex}_{{{inside}}}"
            elif self.peek() == "(" and self.touches() and re.fullmatch(r"\\?[A-Za-zσΦφψ]+( |')?('|_\{\w\})?", latex):
                self.next()
                self.has_call = True
                latex = rf"{latex}\left({self.arguments(')')}\right)"
            else:
                return latex

    def touches(self) -> bool:
        """Whether the next token follows the last one without a space."""
        return self.tokens[self.place].start == self.tokens[self.place - 1].end

    def scripts(self, table: dict[str, str]) -> str:
        found = ""
        while self.peek() in table and self.peek() and self.touches():
            found += table[self.next().text]
        return found


def _bare(latex: str) -> str:
    """Return an expression without the parentheses around all of it."""
    if not latex.startswith(r"\left(") or not latex.endswith(r"\right)"):
        return latex
    depth = 0
    for match in re.finditer(r"\\left|\\right(?!arrow)", latex):
        depth += 1 if match.group() == r"\left" else -1
        if depth == 0 and match.end() < len(latex) - 1:
            return latex
    return latex[len(r"\left(") : -len(r"\right)")]


def _number(text: str) -> str:
    mantissa, _, exponent = text.replace("−", "-").partition("e")
    if exponent:
        return rf"10^{{{int(exponent)}}}" if mantissa == "1" else rf"{mantissa} \cdot 10^{{{int(exponent)}}}"
    return mantissa.replace(",", r"{,}")


def _letter(word: str) -> str:
    base, _, index = word.partition("_")
    decomposed = unicodedata.normalize("NFD", base)
    accents = [character for character in decomposed if unicodedata.combining(character)]
    letters = [LETTERS.get(character, character) for character in decomposed if not unicodedata.combining(character)]
    for accent in accents:
        letters[-1] = rf"{HATS.get(accent, '')}{{{letters[-1]}}}"
    latex = rf"\text{{d}}{letters[1]}" if len(letters) == 2 else letters[0]
    name = index if len(index) == 1 else rf"\text{{{index}}}"
    if index:
        return f"{latex}_{{{name}}}"
    # A command's name ends where the next letter would go on with it.
    return f"{latex} " if re.search(r"\\[A-Za-z]+$", latex) else latex


def parsed(text: str) -> Parser | None:
    """Return the parser after the whole text, with ``latex``; ``None`` where the text is no expression."""
    parser = Parser(tokens_of(text))
    try:
        parser.latex = parser.expression()
    except NotMathematicsError:
        return None
    return parser if parser.place == len(parser.tokens) else None


def to_latex(text: str) -> str | None:
    """Return an expression as LaTeX, ``None`` for a text that isn't one."""
    found = parsed(text)
    return None if found is None else found.latex
