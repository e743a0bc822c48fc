"""Programs by their tests: the three kinds of test, what programs do to pass without solving, and how values are compared."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verifier_example import check, prompt, reply, section

from fairlead.core.errors import ConfigError, DataError
from fairlead.rewards.pool import WorkerPool
from fairlead.rewards.sandbox.driver import _plain
from fairlead.rewards.sandbox.run import why_unavailable
from fairlead.rewards.verifiers import make_verifier, validate_prompts
from fairlead.rewards.verifiers.code import find_code, same_output, same_value

boxed = pytest.mark.skipif(bool(why_unavailable()), reason=f"no sandbox: {why_unavailable()}")
CALLS = [{"call": "add", "args": [3, 4], "returns": 7}, {"call": "add", "args": [1], "kwargs": {"b": -1}, "returns": 0}]
PROGRAM = [{"stdin": "3 4\n", "stdout": "7\n"}, {"stdin": "1 -1\n", "stdout": "0"}]
ASSERTS = ["assert add(3, 4) == 7", "x = add(1, -1)\nassert x == 0"]
GOOD = "def add(a, b):\n    return a + b"
FAST = {"test_timeout_s": 0.8}
"""For programs that hang; others get the default, which a busy machine may need."""


def fenced(code: str) -> str:
    return f"Here it is:\n```python\n{code}\n```\nDone."


def score(tests: object, code: str, **options: object) -> float:
    return check("code", {"tests": tests}, fenced(code), **options)


@boxed
def test_right_programs_pass_and_wrong_ones_do_not():
    assert [score(tests, GOOD) for tests in (CALLS, ASSERTS, ASSERTS[0])] == [1, 1, 1]
    assert [score(tests, GOOD.replace("+", "-")) for tests in (CALLS, ASSERTS)] == [0, 0]
    assert score(PROGRAM, "a, b = map(int, input().split())\nprint(a + b)") == 1
    assert score(PROGRAM, "print(7)") == 0
    assert (
        score(
            [*PROGRAM, *CALLS, *ASSERTS], "try: print(sum(map(int, input().split())))\nexcept EOFError: pass\n" + GOOD
        )
        == 1
    )


@boxed
def test_the_share_of_tests_that_pass():
    """7 is right for the first of each two: 1/2; with one statement more that holds, 4/7."""
    seven = "def add(a, b): return 7"
    assert score(CALLS, seven, score="share") == 0.5
    assert score(PROGRAM, "print(7)", score="share") == 0.5
    assert score([*CALLS, *ASSERTS, *PROGRAM, "assert True"], seven + "\nprint(7)", score="share") == pytest.approx(
        4 / 7
    )


CHEATS = (
    "import os; os._exit(0)",
    "import sys; sys.exit(0)",
    "def add(a, b=0):\n    import os; os._exit(0)",
    "def add(a, b=0): raise SystemExit(0)",
    "while True: pass",
    "def add(a, b=0):\n    while True: pass",
    "def add(",
    "add = 7",
    'import os\nos.write(3, b\'{"case": 0, "value": null}\\n{"case": 1}\\nnonsense\\n[]\\n\')',
    "raise KeyboardInterrupt",
    "def add(a, b=0): return add(a, b)",
    "import os\nwhile True: os.fork()",
    "x = 'x' * (1 << 40)",
)
YES = "class Yes(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n\ndef add(a, b=0): return Yes(5)"


@boxed
@pytest.mark.parametrize("code", CHEATS)
def test_leaving_early_hanging_and_writing_results_pass_nothing(code):
    """A hang is a wrong program, not a failure of the check: 0, not NaN."""
    assert [score(tests, code, **FAST) for tests in (CALLS, ASSERTS)] == [0, 0]


@boxed
def test_a_value_that_equals_everything_passes_statements_only():
    """What the module says of statements; calls and output are decided outside."""
    assert score(CALLS, YES) == 0
    assert score(ASSERTS, YES) == 1


SEARCH = """
import sys, gc
def add(a, b=0):
    seen = repr([o for o in gc.get_objects() if type(o) in (dict, list, str) and 'call' in o]) + sys.stdin.read()
    return [word in seen for word in ('arguments-' + 'are-seen', 'expected-' + 'values-are-not')]
"""


@boxed
def test_the_program_is_told_no_expected_value():
    """It finds its arguments in memory, which shows that the search works, and not what it should return."""
    tests = [{"call": "add", "args": ["arguments-are-seen"], "returns": [True, False]}]
    other = [*tests, {"call": "add", "args": ["x"], "returns": "expected-values-are-not"}]
    assert score(tests, SEARCH) == 1
    assert score(other, SEARCH, score="share") == 0.5


@boxed
def test_a_test_that_may_take_longer_than_the_check_is_refused():
    """Half of timeout_s is the tests': 4 s of 8."""
    assert section("code", timeout_s=8, test_timeout_s=4).test_timeout_s == 4
    with pytest.raises(
        ConfigError,
        match=r"test_timeout_s=5\.0 is cut by timeout_s=8, .*; expected <= 4\. Lower it or raise timeout_s\.",
    ):
        section("code", timeout_s=8)


def test_hanging_programs_are_scored_through_the_pool():
    with WorkerPool(num_workers=1) as pool:
        scorer = make_verifier(section("code", test_timeout_s=3), pool=pool)
        texts = [fenced(GOOD), fenced("while True: pass"), "no code", fenced("def add(a, b): return 0")]
        outcomes = scorer.outcomes([prompt(tests=CALLS)] * 4 + [prompt()], [*map(reply, texts), reply(fenced(GOOD))])
    assert [o.failure for o in outcomes] == [""] * 5
    assert [o.score for o in outcomes[:4]] == [1, 0, 0, 0] and math.isnan(outcomes[4].score)


@boxed
def test_without_the_sandbox_only_when_it_is_allowed():
    assert score(CALLS, GOOD, allow_unsandboxed=True) == 1
    assert score(PROGRAM, "a, b = map(int, input().split())\nprint(a + b)", allow_unsandboxed=True) == 1
    assert score(CALLS, "def add(a, b=0):\n    while True: pass", allow_unsandboxed=True, **FAST) == 0


@pytest.mark.parametrize(
    ("which", "expected"),
    [("last_block", "c\n"), ("first_block", "a\n"), ("all_blocks", "a\n\nc\n")],
)
def test_where_the_program_stands(which, expected):
    text = "x\n```python\na\n```\n```bash\nb\n```\n```\nc\n```\n```python\nunclosed"
    assert find_code(text, which) == expected
    assert find_code(text, "whole") == text
    assert find_code("no block", which) is None


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"stdin": "1"}, "is no list of tests"), ([], "is no list"), ([{"stdin": "1"}], r"tests\[0\].*has no stdout"), ([""], "is empty"),
        (["assert 1", 7], r"tests\[1\].*neither an object nor text"), ([{"call": "f"}], "has no returns"), ([{"stdout": 7}], "wrong kind"),
        ([{"call": "f", "returns": 1, "expected": 1}], "has unknown expected"), ([{"call": "f", "returns": 1, "args": "ab"}], "wrong kind"),
    ],
)  # fmt: skip
def test_tests_that_cannot_be_run_are_told_before_anything_is_sampled(bad, message):
    with pytest.raises(DataError, match=message):
        validate_prompts(section("code", allow_unsandboxed=True), [prompt(tests=bad)])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_value_equals_itself_through_the_driver(value):
    assert same_value(_plain(value), value)


@pytest.mark.parametrize(
    ("found", "expected", "is_same"),
    [
        ((1, 2), [1, 2], True), ({2, 1}, [1, 2], True), ({"a": (1,)}, {"a": [1]}, True), ({1: 2}, {"1": 2}, True), (0.1 + 0.2, 0.3, True),
        (1, 1.0, True), (True, 1, False), (1, True, False), ("1", 1, False), (None, 0, False), ([1], [1, 2], False), ({"a": 1}, {"b": 1}, False),
        (10**30, 10**30 + 1, False), ([], {}, False), ("ab", ["a", "b"], False), (1e-3, 2e-3, False),
    ],
)  # fmt: skip
def test_how_values_are_compared(found, expected, is_same):
    assert same_value(_plain(found), expected) == is_same


def test_how_output_is_compared():
    assert same_output("a \nb\n\n", "a\nb")
    assert not same_output("a\n\nb", "a\nb")
    assert not same_output(" a", "a")
    assert same_output("", "\n")
