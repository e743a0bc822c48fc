"""What models write is shown whole, and does nothing."""

import random
import re
import time

import pytest
from web_payloads import PAYLOADS

from fairlead.web.rendering import marked_differences, show_hidden, to_html

ALLOWED = re.compile(r"</?([a-z0-9]+)((?: (?:class|display|align|start|width|linethickness)=\"[^\"<>]*\")*)>")


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


@pytest.mark.parametrize(("formula", "drawn"), [
    (r"n \log n", "n_log_n"), (r"O(\log n)", "O(log_n)"), (r"\log(n)", "log(n)"), (r"(n+1)\log_2 n", "(n+1)_log2_n"), (r"2\sin^2 x", "2_sin2_x"),
    (r"\log\log n", "log_log_n"), (r"x + \ln x", "x+ln_x"), (r"\frac{\log n}{n \log n}", "log_nn_log_n"), (r"n!\exp x", "n!_exp_x"),
    (r"a\,b", "a_b"), (r"a \mod b", "a_mod_b"), (r"\sqrt{n \log n}", "n_log_n"), (r"xyz", "xyz"),
])  # fmt: skip
def test_functions_and_spaces_of_a_formula_stand_as_in_tex(formula, drawn):
    """Thin spaces around the name of a function, none before its bracket, after an opening one or beside an operator, which has its own."""
    made = re.sub(r'<mspace width="[\d.]+em"></mspace>', "_", str(to_html(f"${formula}$")))
    assert re.sub("<[^>]*>", "", made).strip() == drawn


def test_a_binomial_coefficient_has_no_line_and_a_space_is_never_as_wide_as_a_line():
    assert '<mfrac linethickness="0">' in str(to_html(r"$\binom{n}{k}$"))
    assert "linethickness" not in str(to_html(r"$\frac{n}{k}$"))
    assert '<mspace width="1em">' in str(to_html(r"$a \quad b$"))
    assert "400" not in str(to_html(r"$a \hspace{400em} b$"))


def test_headings_nest_below_those_of_the_page():
    """Levels 1, 2 and 4 become 3, 4 and 5, and the first, a 2, cannot be deeper than one below the page's 2."""
    made = str(to_html("## b\n\n# a\n\n## c\n\n#### d"))
    assert made.split() == ["<h3>b</h3>", "<h3>a</h3>", "<h4>c</h4>", "<h5>d</h5>"]
    assert str(to_html("# a\n\n### b", top=1)).split() == ["<h1>a</h1>", "<h2>b</h2>"]
    assert "<h6>" in str(to_html("\n\n".join(f"{'#' * level} x" for level in range(1, 7)))), "there is none below 6"


def test_hidden_characters_are_shown_and_spelling_is_left():
    assert show_hidden("a\u202eb\u200bc") == "a\u27e8U+202E\u27e9b\u27e8U+200B\u27e9c"
    family, persian = "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert show_hidden(family + persian) == family + persian


def test_differences_are_marked_and_escaped():
    left, right = marked_differences("the <b> cat sat", "the <b> dog sat")
    assert left == "the &lt;b&gt; <mark>cat</mark> sat" and right == "the &lt;b&gt; <mark>dog</mark> sat"
    assert marked_differences("x " * 4000, "y") is None
    left, right = marked_differences("a  b\n\nc d\n", "a x y\n\nc d e")
    assert left == "a  <mark>b</mark>\n\nc d" and right == "a <mark>x y</mark>\n\nc d <mark>e</mark>"


def test_two_versions_of_a_long_text_are_compared_in_time_for_a_page():
    draw = random.Random(0)
    words = draw.choices([f"w{i}" for i in range(500)], [1 / (i + 1) for i in range(500)], k=2500)
    other = ["changed" if i % 10 == 0 else word for i, word in enumerate(words)]
    began = time.process_time()
    left, _ = marked_differences(" ".join(words), " ".join(other))
    assert time.process_time() - began < 1.0
    assert 240 <= left.count("<mark>") <= 250 and re.sub("<[^>]*>", "", left) == " ".join(words)
