"""Errors: one line, picklable, also a standard-library error, an exit code of their own."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core import errors
from fairlead.core.errors import FairleadError, explain, nearest, shorten

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FairleadError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_error_pickles_with_class_message_and_exit_code(cls):
    error = pickle.loads(pickle.dumps(cls("a=1 is wrong; expected 2. Fix it.")))
    assert type(error) is cls
    assert str(error) == "a=1 is wrong; expected 2. Fix it."
    assert error.exit_code == cls.exit_code


def test_every_category_has_its_own_exit_code_and_a_standard_base():
    codes = [c.exit_code for c in CLASSES]
    assert len(set(codes)) == len(codes) and 0 not in codes
    assert all(issubclass(c, (ValueError, RuntimeError)) for c in CLASSES if c is not FairleadError)


def test_explain_follows_the_template():
    text = explain("policies.group_size", 1, "gives zero advantages", expected=">= 2 for grpo", remedy="Raise it.")
    assert text == "policies.group_size=1 gives zero advantages; expected >= 2 for grpo. Raise it."
    assert (
        explain("a.csv", None, "is empty", expected="rows", remedy="Check it")
        == "a.csv is empty; expected rows. Check it."
    )


@given(st.text(max_size=200), st.text(max_size=200))
def test_explain_is_one_line_whatever_the_value_and_the_cause(value, wrong):
    assert len(explain("x", value, wrong, expected="y", remedy="z").splitlines()) == 1


@given(st.text(max_size=300))
def test_shorten_prints_no_control_characters_and_keeps_the_limit(text):
    short = shorten(text, max_chars=40)
    assert short.isprintable()
    assert len(short) <= 40


def test_shorten_escapes_what_would_drive_a_terminal():
    assert shorten("red \x1b[31m") == "red \\x1b[31m"
    assert shorten("a" * 100) == "a" * 57 + "..."
    assert shorten({"a": None}) == "{'a': None}"


def test_nearest_suggests_only_what_is_near():
    assert nearest("lerning_rate", ["learning_rate", "seed"]) == " (did you mean learning_rate?)"
    assert nearest("zzz", ["learning_rate", "seed"]) == ""


def test_of_a_long_path_the_end_is_kept():
    path = "/data/projects/" + "deep/" * 20 + "model-3b/config.json"
    assert (
        shorten(path).startswith("...")
        and shorten(path).endswith("deep/model-3b/config.json")
        and len(shorten(path)) == 60
    )
    assert shorten("a text with a / in it " * 9).startswith("a text with") and shorten("x" * 80) == "x" * 57 + "..."
