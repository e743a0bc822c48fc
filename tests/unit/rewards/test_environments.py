"""Environments: exact arithmetic and nothing else, programs in the box, answers joined, and faults that cost one rollout."""

import operator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fairlead.core.errors import ConfigError
from fairlead.core.protocols import Observation, Turn
from fairlead.core.records import Message, Prompt
from fairlead.core.tool_section import CalculatorSection, CustomEnvironmentSection, PythonSection
from fairlead.rewards.environments import PooledEnvironment, make_environment
from fairlead.rewards.environments.calculator import calculate
from fairlead.rewards.environments.calls import ToolError, find_calls
from fairlead.rewards.environments.pooled import join_observations
from fairlead.rewards.environments.python import PythonTool
from fairlead.rewards.sandbox.run import why_unavailable

boxed = pytest.mark.skipif(bool(why_unavailable()), reason=f"no sandbox: {why_unavailable()}")
PROMPT = Prompt(messages=(Message(role="user", content="What is it?"),), id="p-1")
OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def turn(text: str, *before: str) -> Turn:
    return Turn(prompt=PROMPT, messages=tuple(Message(role="assistant", content=x) for x in before), text=text)


@pytest.mark.parametrize(
    ("asked", "value"),
    [("2+2", "4"), (" 2 * (3 + 4.5) ", "15"), ("0.1 + 0.2", "0.3"), ("1/3", "0.333333333333"), ("7 // 2", "3"), ("-7 // 2", "-4"), ("-7 % 3", "2"),
     ("2**10", "1024"), ("2 ** 3 ** 2", "512"), ("-2 ** 2", "-4"), ("2 ** -1", "0.5"), ("2^5", "32"), ("6 × 7 ÷ 2 − 1", "20"), ("--3", "3"),
     (".5 + 5.", "5.5"), ("((((1))))", "1"), ("10 - 3 - 2", "5"), ("100 / 10 / 5", "2"), ("0 ** 0", "1"), ("(-1) ** 99999999999", "-1"),
     ("1 ** 99999999999", "1"), ("0 * 5", "0"), ("12345678901234567890 * 10", "123456789012345678900")],
)  # fmt: skip
def test_a_calculator_computes_exactly(asked: str, value: str) -> None:
    assert calculate(asked) == value


@pytest.mark.parametrize(
    ("asked", "why"),
    [("", "nothing to compute"), ("1 +", "ends too early"), ("1 2", "unexpected '2'"), ("(1", "not closed"), ("1 / 0", "division by zero"),
     ("1 // 0", "division by zero"), ("1 % 0", "division by zero"), ("0 ** -1", "division by zero"), ("2 ** 0.5", "whole numbers"),
     ("__import__('os')", "cannot read"), ("abs(1)", "cannot read"), ("1e9", "cannot read"), ("9 ** 9 ** 9", "too large"),
     ("2 ** 5000", "too large"), ("(2 ** 4000) * (2 ** 4000)", "too large"), ("1" * 501, "longer than"), ("(" * 60 + "1" + ")" * 60, "nested"),
     ("-" * 60 + "1", "nested"), ("2 ** " * 60 + "1", "nested"), (")", "unexpected")],
)  # fmt: skip
def test_a_calculator_refuses_all_else_and_says_why(asked: str, why: str) -> None:
    with pytest.raises(ToolError, match=why.replace("(", r"\(").replace(")", r"\)")):
        calculate(asked)


numbers = st.integers(0, 999).map(lambda n: (str(n), Fraction(n))) | st.decimals("0", "9", places=2).map(
    lambda d: (str(d), Fraction(str(d)))
)


def _joined(parts):
    (left, a), sign, (right, b) = parts
    if sign in ("/", "//", "%") and (a is None or b is None or b == 0):
        return f"({left} {sign} {right})", None
    return f"({left} {sign} {right})", None if a is None or b is None else Fraction(OPERATORS[sign](a, b))


expressions = st.recursive(
    numbers, lambda inner: st.tuples(inner, st.sampled_from(sorted(OPERATORS)), inner).map(_joined), max_leaves=12
)


@given(expressions)
@settings(max_examples=200, deadline=None)
def test_a_calculator_agrees_with_pythons_own_fractions(expression: tuple[str, Fraction | None]) -> None:
    text, value = expression
    if value is None:
        with pytest.raises(ToolError, match="division by zero"):
            calculate(text)
    else:
        assert Fraction(calculate(text)) == pytest.approx(value, rel=1e-11)


@given(st.text(alphabet="0123456789.+-*/%()^ ", max_size=30))
@settings(max_examples=300, deadline=None)
def test_whatever_stands_there_has_a_value_or_a_reason(text: str) -> None:
    try:
        assert calculate(text)
    except ToolError as error:
        assert str(error)


def test_calls_stand_between_their_tags() -> None:
    text = "a <calculator>1+1</calculator> b <python>x\ny</python> <calculator> 2 </calculator> <calculator>3"
    assert find_calls(text, "calculator") == ["1+1", " 2 "]
    assert find_calls(text, "python") == ["x\ny"]
    assert find_calls("<calculators>1</calculators>", "calculator") == []


def test_answers_of_several_environments_are_one() -> None:
    found = [
        Observation(text="a", reward=0.5, num_calls=2, num_errors=1),
        Observation(is_done=True, reward=1),
        Observation(text="b", num_calls=1),
    ]
    assert join_observations(found) == Observation(text="a\nb", is_done=True, reward=1.5, num_calls=3, num_errors=1)
    assert join_observations([]) == Observation()
    assert (
        join_observations([Observation(text="a"), Observation(failure="python: timeout: x")]).failure
        == "python: timeout: x"
    )


def pooled(*sections, said: list[str] | None = None) -> PooledEnvironment:
    environment = make_environment(sections, say=(said if said is not None else []).append)
    environment.pool.num_workers = 1
    return environment


def custom(*, timeout_s: float = 30.0, **options) -> CustomEnvironmentSection:
    return CustomEnvironmentSection(
        kind="custom", build="environment_examples:make_game", options=options, timeout_s=timeout_s
    )


def test_turns_are_answered_in_worker_processes_each_by_what_it_calls() -> None:
    environment = pooled(CalculatorSection(kind="calculator"), custom(target=3))
    try:
        found = environment.step(
            [
                turn("<calculator>1/0</calculator> <calculator>4*5</calculator>"),
                turn("none"),
                turn("3"),
                turn("5", "x", "y"),
            ]
        )
    finally:
        environment.pool.close()
    assert found == [
        Observation(text="error: division by zero\n20", num_calls=2, num_errors=1),
        Observation(),
        Observation(text="right", is_done=True, reward=1.0),
        Observation(text="no, after 2 messages of p-1", reward=-0.25),
    ]


def test_a_turn_that_calls_nothing_starts_no_worker() -> None:
    environment = pooled(CalculatorSection(kind="calculator"))
    assert environment.step([turn("It is 4.")]) == [Observation()]
    assert environment.pool._workers == []


def test_an_environment_that_fails_costs_its_own_rollout_and_is_told_once() -> None:
    said: list[str] = []
    environment = pooled(custom(timeout_s=1.5), said=said)
    environment.pool.retries = 0
    try:
        found = environment.step([turn("crash"), turn("7"), turn("raise"), turn("hang"), turn("nan")])
    finally:
        environment.pool.close()
    assert [one.failure.split(":")[1].strip() if one.failure else "" for one in found] == [
        "crashed",
        "",
        "error",
        "timeout",
        "error",
    ]
    assert "no such move" in found[2].failure and "no finite number" in found[4].failure
    assert found[1] == Observation(text="right", is_done=True, reward=1.0)
    assert len(said) == 1 and "rl/tool_failed" in said[0]


def test_an_environment_that_cannot_be_built_is_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="no_such_module"):
        pooled(CustomEnvironmentSection(kind="custom", build="no_such_module:make"))


@boxed
def test_programs_run_from_nothing_and_are_told_what_went_wrong() -> None:
    tool = PythonTool(PythonSection(kind="python", program_timeout_s=5, max_output_chars=10))
    found = tool.answer(turn("<python>\nx = 2\nprint(x ** 10)\n</python> then <python>print(x)</python>"))
    assert found is not None and (found.num_calls, found.num_errors) == (2, 1)
    assert (
        found.text is not None
        and found.text.splitlines()[0] == "1024"
        and found.text.splitlines()[1].startswith("error: NameError")
    )
    assert tool.answer(turn("no program")) is None
    long = tool.answer(turn("<python>print('a' * 50)</python>"))
    assert long is not None and long.text == "a" * 10


@boxed
def test_programs_and_sums_are_answered_by_the_workers_together() -> None:
    environment = pooled(CalculatorSection(kind="calculator"), PythonSection(kind="python", tag="run"))
    try:
        found = environment.step(
            [turn("<run>print(2 + 3)</run> <calculator>1 + 1</calculator>"), turn("<python>print(1)</python>")]
        )
    finally:
        environment.pool.close()
    assert found == [Observation(text="2\n5", num_calls=2), Observation()]


def test_a_program_that_may_take_longer_than_its_turn_is_refused() -> None:
    """Half of timeout_s is the programs': 3 s of 6."""
    assert PythonSection(kind="python", timeout_s=6, program_timeout_s=3).program_timeout_s == 3
    with pytest.raises(ValidationError, match=r"program_timeout_s=5\.0 is cut by timeout_s=6, .*; expected <= 3\."):
        PythonSection(kind="python", timeout_s=6)


@boxed
def test_a_program_that_hangs_is_ended_and_the_policy_is_told() -> None:
    tool = PythonTool(PythonSection(kind="python", program_timeout_s=0.5))
    found = tool.answer(turn("<python>while True: pass</python>"))
    assert found is not None and found.text == "error: it took longer than 0.5 s" and found.num_errors == 1
