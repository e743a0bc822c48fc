"""Mathematical answers: forms of one value, traps, and the gold answers of four data sets."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verifier_example import check, prompt, real_rows, reply, section

from fairlead.rewards.verifiers import build_verifier
from fairlead.rewards.verifiers.math_answers import MathAnswer
from fairlead.rewards.verifiers.numbers import equal_numbers, read_number

pytest.importorskip("math_verify", reason="the extra `verify` is not installed")
VERIFIER = build_verifier(section("math"))
assert isinstance(VERIFIER, MathAnswer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("1/2", "0.5"), ("1/2", r"\frac12"), ("1/2", r"\dfrac{1}{2}"), ("-1/3", r"-\frac{1}{3}"), ("-(1/3)", "-1/3"),
        ("1000", "1,000"), ("1000", r"1{,}000"), ("1000", r"\$1,000.00"), ("1000", "$1,000"), ("2.5", "2 1/2"), ("50%", "0.5"), ("50", "50%"),
        ("9 (apples)", "9"), ("9", "9 apples"), ("36 (sq. inches)", "36"), ("126km", "126"), ("0.6666666667", "2/3"), ("72", "72.0"),
        ("1500", "1.5e3"), ("1500", r"1.5 \times 10^3"), ("1000", "10^{3}"), ("3:30 p.m.", "3:30 pm"), ("Yes", "yes."), ("6th", "6"),
        ("9 apples", "9 red apples"), ("36 (sq. inches)", "36 square inches"), ("5 (times)", "5"), ("3 p.m.", "3 pm"),
        ("x^2+2x+1", "(x+1)^2"), ("2x", "x \\cdot 2"), ("5(\u221a3 + 1)", r"5\sqrt{3}+5"), ("(1,2)", "(1, 2)"), (r"\{1,2\}", r"\{2,1\}"),
        (r"\frac{\pi}{2}", "\u03c0/2"), ("x=5", "5"), ("5", "x = 5"), ("[0,1)", "[0, 1)"), ("3+4i", "4i+3"), ("x<3", "3 > x"), ("2\\text{ cm}", "2"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}"), ("2!", "2"), ("2", "2!"),
    ],
)  # fmt: skip
def test_two_forms_of_one_value_are_equal(reference, answer):
    assert VERIFIER.equal(reference, answer)


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("72", "72 or 73"), ("72", "71.9999"), ("1000000", "1000001"), ("5", "-5"), ("5!", "5"), ("5", "5 million"), ("5", "5 to 6"),
        ("5:45", "45"), ("5:45", "5:46"), ("Rug B", "B Rug"), ("Yes", "No"), ("1/2", "1/3"), ("x+1", "x-1"), ("(1,2)", "(2,1)"), ("[0,1)", "[0,1]"),
        ("5", ""), ("5", "five"),
        ("700 meters", "700 kilometers"), ("5 am", "5 p.m."), ("9 (apples)", "9 pears"), ("2% Profit", "2% Loss"),
        ("2", "__import__('os').getpid() * 0 + 2"), ("2", "[c for c in ().__class__.__mro__]"),
    ],
)  # fmt: skip
def test_other_values_are_not(reference, answer):
    assert not VERIFIER.equal(reference, answer)


def test_scores_of_completions():
    assert check("math", {"answer": 72}, "48 + 24 = 72\n#### 72") == 1
    assert check("math", {"answer": 72.0}, r"It is 71. No: \boxed{72}") == 1
    assert check("math", {"answer": "72"}, r"\boxed{73} although #### 72") == 0
    assert check("math", {"answer": ["A", "5/2"]}, "The answer is 2.5.") == 1
    assert check("math", {"answer": 72}, "I do not know") == 0
    assert math.isnan(check("math", {}, "#### 72"))


def test_text_is_never_evaluated_as_python(tmp_path):
    """Math-Verify's reader of plain expressions would run this; the LaTeX grammar does not."""
    mark = tmp_path / "mark"
    for code in (
        f"open('{mark}','w')",
        f"$open('{mark}','w')$",
        rf"\boxed{{open('{mark}','w')}}",
        f"1+open('{mark}','w').write(str(1))",
    ):
        assert check("math", {"answer": "x+1"}, code, extract=["boxed", "whole"]) == 0
    assert not mark.exists()


WHOLE = st.integers(min_value=-(10**9), max_value=10**9)


@given(WHOLE, st.sampled_from(["{:,}", "${:,}", "{}.00", "{} apples", "\\${:,}", "{}.", "{} (red apples)", "x = {}"]))
def test_a_whole_number_is_read_from_any_form(value, form):
    number = read_number(form.format(value))
    assert number is not None and number.value == value


@given(WHOLE, WHOLE)
def test_whole_numbers_are_equal_only_to_themselves(a, b):
    one, other = read_number(str(a)), read_number(str(b))
    assert one is not None and other is not None
    assert equal_numbers(one, other, tolerance=0.01) == (a == b)


@given(st.text(max_size=60))
def test_any_text_is_a_number_or_none(text):
    number = read_number(text)
    assert number is None or re.search(r"\d", text)


def other_number(text: str) -> str:
    """Another value written alike: the first digit string is one more."""
    return re.sub(r"\d+", lambda m: str(int(m[0]) + 1), text, count=1)


@pytest.mark.data
def test_gsm8k_gold_answers_verify_and_others_do_not():
    for row in real_rows("gsm8k_train.jsonl.gz"):
        question = prompt(row["question"], answer=row["final"])
        assert VERIFIER.check(question, reply(row["answer"])) == 1, row
        wrong = re.sub(r"#### .*", lambda m: other_number(m[0]), row["answer"])
        assert VERIFIER.check(question, reply(wrong)) == 0, row


@pytest.mark.data
def test_mawps_gold_answers_verify_and_others_do_not():
    for row in real_rows("mawps.jsonl.gz"):
        question = prompt(row["input"], answer=row["target"])
        for form in ("So it is {:.10g}.", "The answer is {:.10g}.", r"\boxed{{{:.10g}}}", "#### {:,.10f}"):
            assert VERIFIER.check(question, reply(form.format(row["target"]))) == 1, (row, form)
            assert VERIFIER.check(question, reply(form.format(row["target"] + 1))) == 0, (row, form)


@pytest.mark.data
def test_asdiv_gold_answers_verify_and_others_do_not():
    for row in real_rows("asdiv.jsonl.gz"):
        question, gold = prompt(row["body"], answer=row["answer"]), row["answer"]
        bare = re.sub(r"\s*\(\s*[a-z][^)]*\)$", "", gold)
        other = other_number(gold) if re.search(r"\d", gold) else f"not {gold}"
        for form in ("The answer is {}", r"\boxed{{{}}}", "#### {}"):
            assert VERIFIER.check(question, reply(form.format(gold))) == 1, (row, form)
            assert VERIFIER.check(question, reply(form.format(bare))) == 1, (row, form)
            assert VERIFIER.check(question, reply(form.format(other))) == 0, (row, form)


@pytest.mark.data
def test_aqua_gold_choices_verify_and_others_do_not():
    verifier = build_verifier(section("math", extract=["boxed", "hash", "phrase", "choice"]))
    for row in real_rows("aqua.jsonl.gz"):
        question = prompt(row["question"], answer=row["correct"])
        for letter in "ABCDE":
            for form in ("{}", "({})", r"\boxed{{{}}}", "The answer is {}.", "I take option {})."):
                assert verifier.check(question, reply(form.format(letter))) == (letter == row["correct"]), (row, form)


@pytest.mark.data
def test_aqua_values_of_the_options_are_told_apart():
    """Each option equals itself and no other of its question, but for options that are written with the same characters (62, 34 and 34, 62)."""
    num = 0
    for row in real_rows("aqua.jsonl.gz"):
        texts = [re.sub(r"^(?:[A-E]\)\s*)+", "", option) for option in row["options"]]
        for i, a in enumerate(texts):
            assert VERIFIER.equal(a, a)
            for b in texts[i + 1 :]:
                num += 1
                assert not VERIFIER.equal(a, b) or sorted(a.replace(" ", "")) == sorted(b.replace(" ", "")), row
    assert num == 2540
