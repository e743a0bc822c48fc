"""Text of models and people to HTML that is safe to show and loads nothing.

Markdown without raw HTML (markdown-it-py), code coloured by classes (Pygments), LaTeX to MathML (latex2mathml), then cleaned by an
allow-list (nh3). Images are named, not loaded, and links are text: a beacon would tell who rates, and a domain may tell which model wrote.
Characters that reorder or hide text are shown by their code point.

Example:
    to_html("**Hi** ![x](https://tracker.example/p.png)")   # '<p><strong>Hi</strong> <span class="image">image: x</span></p>'
"""

import difflib
import functools
import html
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element, tostring  # of trees that are made here; nothing is parsed
from xml.sax.saxutils import unescape

import latex2mathml.converter
import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

MAX_MATH = 2_000
"""Characters of a formula; longer ones are shown as they are."""
MAX_KEPT = 20_000
"""Characters of a text whose HTML is kept in memory for the next rater."""
MAX_COMPARED = 3_000
"""Words of a text; longer pairs are not marked, for the comparison takes quadratic time."""
_WORD = re.compile(r"(\s*)(\S+)")
_HIDDEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u061c\u00ad\U000e0000-\U000e007f]")
_UNSEEN = re.compile(f"{_HIDDEN.pattern}|\r")
_MATHML = frozenset(
    "math mrow mi mn mo ms mtext mspace msup msub msubsup mfrac msqrt mroot mover munder munderover mtable mtr mtd mpadded mphantom".split()  # noqa: SIM905
)
_MATHML_VALUES = {
    "mspace": {"width": {"0.167em", "0.222em", "0.278em", "0.333em", "0.5em", "1em", "2em"}},
    "mfrac": {"linethickness": {"0"}},
}
"""Spaces that have a name in LaTeX, of which none is as wide as a line; and no line in a binomial coefficient, which would be a fraction with it."""
_ROWS = frozenset({"math", "mrow", "mtd", "mstyle", "mpadded", "mphantom", "msqrt"})
"""Elements whose children stand beside each other."""
_TAGS = frozenset(
    "p br hr h1 h2 h3 h4 h5 h6 strong em s del code pre blockquote ul ol li table thead tbody tr th td span div".split()  # noqa: SIM905
)
_FORMATTER = HtmlFormatter[str](nowrap=True)
_COLOURING = threading.Lock()
"""Lexers may keep something of a text while they are in it."""
_CLASSES = {"span", "div", "code", "pre"}


def to_html(text: str, *, top: int = 3) -> Markup:
    """Render text of a model, a rater or a lead.

    Args:
        top: level of its highest heading, 1 where the text is the page; those below follow without a gap, so that headings nest.
    """
    return Markup((_kept if len(text) <= MAX_KEPT else _render)(text, top))  # noqa: S704 - cleaned by nh3 below


def parse(text: str) -> list[Token]:
    """The blocks of a text, for who wants its words and not its HTML."""
    return _markdown().parse(text)


@functools.lru_cache(maxsize=4096)
def _kept(text: str, top: int) -> str:
    """Each item comes to several raters, soon one after another."""
    return _render(text, top)


def _render(text: str, top: int) -> str:
    made = _markdown().render(show_hidden(text), {"top": top})
    return nh3.clean(
        made, tags=set(_TAGS | _MATHML), link_rel=None, url_schemes=set(),
        attributes={**{tag: {"class"} for tag in _CLASSES}, "math": {"display"}, "th": {"align"}, "td": {"align"}, "ol": {"start"}},
        tag_attribute_values=_MATHML_VALUES, clean_content_tags={"script", "style"},
    )  # fmt: skip


def show_hidden(text: str) -> str:
    """Write characters that reorder or hide text as their code points; joiners inside emoji and scripts that need them stay."""
    return _HIDDEN.sub(
        lambda found: found[0] if _is_joiner(text, found) else f"\u27e8U+{ord(found[0]):04X}\u27e9", text
    )


def as_written(text: str) -> Markup:
    """The text itself, with what stands for a hidden character in an element of its own, so that offsets can be counted. A carriage return,
    which browsers drop, is one too."""
    parts: list[str] = []
    at = 0
    for found in _UNSEEN.finditer(text):
        if not _is_joiner(text, found):
            words = "" if found[0] == "\r" else f"\u27e8U+{ord(found[0]):04X}\u27e9"
            parts += [html.escape(text[at : found.start()]), f'<span class="hidden-character">{words}</span>']
            at = found.end()
    return Markup("".join([*parts, html.escape(text[at:])]))  # noqa: S704 - every piece is escaped


def _is_joiner(text: str, found: re.Match[str]) -> bool:
    """A (non-)joiner between two letters or pictures that are not ASCII is spelling."""
    before, after = text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
    return found[0] in "\u200c\u200d" and before > "\u007f" and after > "\u007f"


@functools.cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "highlight": _coloured}).enable(["table", "strikethrough"])
    markdown.use(dollarmath_plugin, allow_digits=False, renderer=_math)
    markdown.add_render_rule("image", _image)
    markdown.add_render_rule("link_open", _link_open)
    markdown.add_render_rule("link_close", _link_close)
    markdown.core.ruler.push("nest_headings", _nest_headings)
    markdown.validateLink = lambda url: True  # every link becomes text, whatever its scheme
    return markdown


def _nest_headings(state: StateCore) -> None:
    top = state.env.get("top", 1)
    opening = [token for token in state.tokens if token.type == "heading_open"]
    levels, above = sorted({token.tag for token in opening}), top - 1
    tags: list[str] = []
    for token in opening:
        above = min(top + levels.index(token.tag), above + 1, 6)
        tags.append(f"h{above}")
    closing = [token for token in state.tokens if token.type == "heading_close"]
    for start, end, tag in zip(opening, closing, tags, strict=True):
        start.tag = end.tag = tag


def _coloured(code: str, language: str, _attributes: str) -> str:
    lexer = _lexer(language)
    if lexer is None:
        return html.escape(code)
    with _COLOURING:
        return highlight(code, lexer, _FORMATTER)


@functools.lru_cache(maxsize=256)
def _lexer(language: str) -> Lexer | None:
    """Making one takes as long as a short text."""
    try:
        return get_lexer_by_name(language, stripnl=False) if language else None
    except ClassNotFound:
        return None


def _math(content: str, options: Mapping[str, Any]) -> str:
    mode = "block" if options["display_mode"] else "inline"
    if len(content) > MAX_MATH:
        return f"<code>{html.escape(content)}</code>"
    try:
        made = latex2mathml.converter.convert_to_element(content, display=mode)
        _set_functions_apart(made)
        return unescape(tostring(made, encoding="unicode"))
    except Exception:  # a formula that cannot be converted is shown as it was written
        return f"<code>{html.escape(content)}</code>"


def _set_functions_apart(formula: Element) -> None:
    """The thin spaces that TeX puts around log, sin and their like; browsers put none around an <mi>."""
    for row in [element for element in formula.iter() if element.tag in _ROWS]:
        children = list(row)
        for position in range(len(children) - 1, 0, -1):
            before, after = children[position - 1 : position + 1]
            if (_is_function(before) and after.tag not in ("mo", "mspace")) or (
                _is_function(after) and _ends_a_term(before)
            ):
                row.insert(position, Element("mspace", width="0.167em"))


def _is_function(element: Element) -> bool:
    """Is it a name of several letters, alone or with an index or exponent?"""
    if element.tag in ("msub", "msup", "msubsup"):
        return _is_function(element[0])
    text = element.text or ""
    return element.tag == "mi" and len(text) > 1 and text.isalpha()


def _ends_a_term(element: Element) -> bool:
    if element.tag == "mo":
        return html.unescape(element.text or "") in (")", "]", "}", "!")
    return element.tag != "mspace"


def _image(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    token = tokens[index]
    return f'<span class="image">image: {html.escape(token.content)} ({html.escape(str(token.attrGet("src")))})</span>'


def _link_open(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    return '<span class="link">'


def _link_close(_self: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    """The address follows in brackets, unless it is the text itself."""
    opening = max(i for i in range(index) if tokens[i].type == "link_open")
    target = str(tokens[opening].attrGet("href"))
    shown = "".join(token.content for token in tokens[opening + 1 : index])
    return "</span>" if shown in (target, target.removeprefix("mailto:")) else f"</span> ({html.escape(target)})"


def marked_differences(left: str, right: str) -> tuple[Markup, Markup] | None:
    """Both texts as written, with the words that the other lacks in <mark>; None where they are too long to compare."""
    return (_kept_differences if len(left) + len(right) <= MAX_KEPT else _differences)(left, right)


@functools.lru_cache(maxsize=2048)
def _kept_differences(left: str, right: str) -> tuple[Markup, Markup] | None:
    return _differences(left, right)


def _differences(left: str, right: str) -> tuple[Markup, Markup] | None:
    """Compare words.

    Words that are frequent in a text (autojunk) begin no match, only go on with one: without that, two versions of a thousand words take
    seconds.
    """
    a, b = (_WORD.findall(show_hidden(text)) for text in (left, right))
    if max(len(a), len(b)) > MAX_COMPARED:
        return None
    matcher = difflib.SequenceMatcher(a=[word for _, word in a], b=[word for _, word in b], autojunk=True)
    sides: tuple[list[str], list[str]] = ([], [])
    for kind, a0, a1, b0, b1 in matcher.get_opcodes():
        for side, words in ((sides[0], a[a0:a1]), (sides[1], b[b0:b1])):
            piece = html.escape("".join(space + word for space, word in words))
            bare = piece.lstrip()
            side.append(f"{piece[: len(piece) - len(bare)]}<mark>{bare}</mark>" if kind != "equal" and bare else piece)
    return Markup("".join(sides[0])), Markup("".join(sides[1]))  # noqa: S704 - every piece is escaped
