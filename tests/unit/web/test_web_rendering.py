"""What models write is shown whole, and does nothing."""

import re

import pytest
from web_payloads import PAYLOADS

from fairlead.web.rendering import marked_differences, show_hidden, to_html

ALLOWED = re.compile(r"</?([a-z0-9]+)((?: (?:class|display|align|start)=\"[^\"<>]*\")*)>")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_leaves_a_tag_that_is_not_allowed(payload):
    made = str(to_html(payload))
    for found in re.finditer(r"<[^>]*>?", made):
        assert ALLOWED.fullmatch(found[0]), (payload, found[0])
    names = {found[1] for found in ALLOWED.finditer(made)}
    assert not names & {
        "script",
        "img",
        "a",
        "svg",
        "iframe",
        "style",
        "link",
        "object",
        "form",
        "input",
        "annotation",
        "maction",
    }


@pytest.mark.parametrize(("text", "words"), [
    ("**bold** `code`", "<p><strong>bold</strong> <code>code</code></p>"), ("a < b & c", "<p>a &lt; b &amp; c</p>"),
    ("| a | b |\n|--|--|\n| 1 | 2 |", "<td>1</td>"), ("$x^2$", "<msup><mi>x</mi><mn>2</mn></msup>"), ("~~gone~~", "<s>gone</s>"),
    ("```python\nreturn 1\n```", '<span class="k">return</span>'), ("```nolanguage\n<b>\n```", "&lt;b&gt;"),
    ("it costs $5 and $6", "it costs $5 and $6"),
    ("![a cat](https://x.example/c.png)", "image: a cat (https://x.example/c.png)"), ("[text](https://x.example/)", "text</span> (https://x.example/)"),
    ("<https://x.example/>", '<span class="link">https://x.example/</span>'), ("$\\undefined{$", "undefined"),
])  # fmt: skip
def test_text_is_rendered(text, words):
    assert words in str(to_html(text))


def test_hidden_characters_are_shown_and_spelling_is_left():
    assert show_hidden("a\u202eb\u200bc") == "a\u27e8U+202E\u27e9b\u27e8U+200B\u27e9c"
    family, persian = "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert show_hidden(family + persian) == family + persian


def test_differences_are_marked_and_escaped():
    left, right = marked_differences("the <b> cat sat", "the <b> dog sat")
    assert left == "the &lt;b&gt; <mark>cat</mark> sat" and right == "the &lt;b&gt; <mark>dog</mark> sat"
    assert marked_differences("x " * 4000, "y") is None
