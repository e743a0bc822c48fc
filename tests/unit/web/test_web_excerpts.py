"""Lists show the words of a text: no markup, nothing hidden, nothing that a page would take for its own."""

import pytest
from web_example import pairs
from web_payloads import PAYLOADS

from fairlead.web import importing, projects
from fairlead.web.excerpts import NUM_CHARS, excerpt


@pytest.mark.parametrize(("text", "words"), [
    ("Write **me** a `median` of *two* lists,\nplease.", "Write me a median of two lists, please."),
    ("# Title\n\n- one\n- two\n\n> said", "Title one two said"), ("1. Water\n2. Light", "Water Light"),
    ("Why does this fail?\n\n```python\nprint(**kw)\n```", "Why does this fail? print(**kw)"),
    ("[text](https://x.example/) ![a **cat**](https://x.example/c.png)", "text a cat"),
    ("| a | b |\n|--|--|\n| 1 | 2 |", "a b 1 2"), ("~~gone~~ and $x^2$", "gone and x^2"),
    ("2 * 3 * 4 < 5 & snake_case_name", "2 * 3 * 4 < 5 & snake_case_name"),
    ("<b>not markup here</b>", "<b>not markup here</b>"), ("---", "---"), ("[a]: https://x.example/", "[a]: https://x.example/"), ("", ""),
    ("left\u202eright", "left\u27e8U+202E\u27e9right"), ("**never closed", "**never closed"), ("a  \nb\n\n\nc", "a b c"),
])  # fmt: skip
def test_an_excerpt_is_what_the_text_says(text, words):
    assert excerpt(text) == words


def test_a_long_text_is_cut():
    assert excerpt("word " * 1000) == ("word " * 1000)[: NUM_CHARS - 3] + "..."
    assert excerpt("**" + "x" * NUM_CHARS + "**") == "x" * NUM_CHARS, "marks do not count"


def test_lists_of_items_show_words_and_not_marks(database, browser):
    """What two raters see of their votes, an adjudicator of their difference, and a lead of what is unsure."""
    rules = projects.Rules(ties="allowed", both_bad=True)
    project = projects.create_project(database, "test", votes_per_item=2, calibration_items=0, rules=rules)
    importing.add_items(database, project.id, pairs(1, prefix="<i>Say</i> **what** `this` is"))
    ann, bob, lea = browser("ann"), browser("bob"), browser("lea", "lead")
    ann.rate(project)
    bob.rate(project, "tie")
    for who, page in ((ann, "mine"), (bob, "mine"), (lea, "disagreements"), (lea, "labels")):
        seen = who.get(f"/p/{project.id}/{page}").text
        assert "&lt;i&gt;Say&lt;/i&gt; what this is 0" in seen and "**what**" not in seen, page


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_stays_text(payload):
    assert isinstance(excerpt(payload), str) and not hasattr(excerpt(payload), "__html__"), "the page escapes it"
