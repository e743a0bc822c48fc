"""Where the answer stands: each policy on texts of its own, their order, the mark after which answers count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.rewards.verifiers.extraction import POLICIES, find_answer, last_boxed, tidy


@pytest.mark.parametrize(
    ("policy", "text", "expected"),
    [
        ("boxed", r"first \boxed{1}, then \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("boxed", r"\boxed{\text{a {nested} one}} end", r"\text{a {nested} one}"),
        ("boxed", r"good \boxed{7} and cut \boxed{8", "7"),
        ("boxed", r"\boxed 7", "7"),
        ("boxed", r"\fbox{9}", "9"),
        ("boxed", "none", None),
        ("hash", "so\n#### 1,234 \nmore", "1,234"),
        ("hash", "#### 1\n#### 2", "2"),
        ("hash", "####", None),
        ("tag", "<think>5</think><answer> 42 </answer>", "42"),
        ("tag", "<answer>unclosed", None),
        ("phrase", "The answer is 12. Then more.", "12"),
        ("phrase", "the final answer is: $x+1$.", "x+1"),
        ("phrase", "**Answer:** Paris", "Paris"),
        ("phrase", "Answer: 3.5", "3.5"),
        ("phrase", "The answer is Mrs. Hilt. She wins.", "Mrs. Hilt"),
        ("phrase", "answer = 9 apples", "9 apples"),
        ("phrase", "an answering machine", None),
        ("choice", "Maybe (B). No: (C)", "C"),
        ("choice", "C) is right", "C"),
        ("choice", "no letters HERE", None),
        ("last_number", "from 3 to 1,250.75 dollars.", "1,250.75"),
        ("last_number", "it is -5.", "-5"),
        ("last_number", "about 3/4", "3/4"),
        ("last_number", "v1x", None),
        ("last_line", "a\n**b** \n\n", "b"),
        ("whole", "  all of it\n", "all of it"),
        ("whole", "  \n", None),
    ],
)
def test_each_policy(policy, text, expected):
    assert POLICIES[policy](text) == expected


def test_the_first_policy_that_finds_something_decides():
    text = r"#### 3 but \boxed{4}"
    assert find_answer(text, ("boxed", "hash")) == "4"
    assert find_answer(text, ("hash", "boxed")) == r"3 but \boxed{4}"
    assert find_answer("only 5", ("boxed", "hash", "last_number")) == "5"
    assert find_answer("nothing", ("boxed", "last_number")) is None


def test_only_what_follows_the_mark_counts():
    assert find_answer("<think>1</think> 2 </think> 3", ("last_number",), after="</think>") == "3"
    assert find_answer("<think>1", ("last_number",), after="</think>") is None


@pytest.mark.parametrize(
    ("text", "expected"), [(" **$5$**. ", "5"), ("3:30 p.m.", "3:30 p.m."), ("`x`", "x"), ("$$", "$$"), ("2.", "2")]
)
def test_tidy(text, expected):
    assert tidy(text) == expected


@given(st.text(alphabet="ab{}\\ ", max_size=20), st.text(alphabet="xy 1", min_size=1, max_size=5))
def test_what_is_boxed_last_is_found(before, content):
    """Any text before, whatever its braces, does not hide the last box."""
    assert last_boxed(f"{before}\\boxed{{{content}}} end") == content.strip()


@given(st.text(max_size=200))
def test_no_policy_raises_on_any_text(text):
    for name, policy in POLICIES.items():
        found = policy(text)
        assert found is None or isinstance(found, str), name
