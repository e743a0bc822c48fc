"""Regular expressions and JSON schemas: of the recipe and of the prompt, wrong ones, hostile ones."""

import json
import math

import pytest
from verifier_example import check, prompt, reply, section

from fairlead.core.errors import ConfigError, DataError
from fairlead.rewards.pool import WorkerPool
from fairlead.rewards.verifiers import build_verifier, make_verifier, validate_prompts

SCHEMA = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("pattern", "text", "options", "expected"),
    [
        (r"\d+", "a 12", {}, 1), (r"\d+", "a 12", {"match": "whole"}, 0), (r"[a-z] \d+", "a 12", {"match": "whole"}, 1), ("^b$", "a\nb", {}, 0),
        ("^b$", "a\nb", {"multiline": True}, 1), ("A.b", "a\nB", {"ignore_case": True, "dot_all": True}, 1),
        ("A.b", "a\nB", {"ignore_case": True}, 0),
        ("4", "3 then #### 4", {"extract": ["hash"]}, 1), ("3", "3 then #### 4", {"extract": ["hash"]}, 0), ("^$", "", {}, 1),
        ("x", "<think>x</think> y", {"after": "</think>"}, 0),
    ],
)  # fmt: skip
def test_patterns_of_the_prompt_and_of_the_recipe(pattern, text, options, expected):
    assert check("regex", {"pattern": pattern}, text, **options) == expected
    assert check("regex", {}, text, pattern=pattern, **options) == expected


def test_a_pattern_is_checked_where_it_stands():
    assert math.isnan(check("regex", {}, "x"))
    with pytest.raises(DataError, match=r"meta\.pattern=\( is not a regular expression"):
        validate_prompts(section("regex"), [prompt(pattern="(")])
    with pytest.raises(DataError, match=r"meta\.pattern=7 is not text"):
        validate_prompts(section("regex"), [prompt(pattern=7)])
    with pytest.raises(ConfigError, match=r"pattern=\( is not a regular expression"):
        section("regex", pattern="(")


def test_a_pattern_of_exponential_time_is_ended():
    with WorkerPool(num_workers=1, retries=0) as pool:
        hostile = prompt(pattern="^(a+)+$")
        (ended,) = make_verifier(section("regex", timeout_s=0.5), pool=pool).outcomes(
            [hostile], [reply("a" * 50 + "b")]
        )
        (after,) = make_verifier(section("regex"), pool=pool).outcomes([hostile], [reply("aaa")])
    assert (ended.failure, after.failure, after.score) == ("timeout", "", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"n": 3}', 1), (' {"n": 0}\n', 1), ('{"n": -1}', 0), ('{"n": "3"}', 0), ("{}", 0), ('{"n": 1, "m": 2}', 0), ("[]", 0), ("", 0), ("no", 0),
        ('{"n": NaN}', 0), ('{"n": 1, "n": 2}', 0), ('```json\n{"n": 3}\n```', 0), ("[" * 100_000, 0),
    ],
)  # fmt: skip
def test_json_that_fits_a_schema(text, expected):
    assert check("json_schema", {"schema": SCHEMA}, text) == expected
    assert check("json_schema", {}, text, json_schema=SCHEMA) == expected


def test_json_in_a_fenced_block():
    text = 'Text {"n": 1}\n```json\n{"n": -5}\n```\nthen\n```\n{"n": 5}\n```\nend'
    assert check("json_schema", {"schema": SCHEMA}, text, extract="last_block") == 1
    assert check("json_schema", {"schema": SCHEMA}, '{"n": 5}', extract="last_block") == 1
    assert math.isnan(check("json_schema", {}, text))


def test_a_schema_may_say_its_dialect_and_refer_to_itself():
    tuples = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}, {"$ref": "#/definitions/name"}],
              "definitions": {"name": {"type": "string"}}}  # fmt: skip
    assert [check("json_schema", {"schema": tuples}, json.dumps(v)) for v in ([1, "a"], [1, 2])] == [1, 0]


def test_a_schema_is_checked_where_it_stands():
    with pytest.raises(DataError, match=r"meta\.schema=.* is no schema \('nothing' is not valid"):
        validate_prompts(section("json_schema"), [prompt(schema={"type": "nothing"})])
    with pytest.raises(DataError, match=r"is not an object"):
        validate_prompts(section("json_schema"), [prompt(schema=[1])])
    outside = {"properties": {"a": {"$ref": "https://example.org/schema.json"}}}
    with pytest.raises(DataError, match=r"refers to https://example.org/schema.json, which is not fetched"):
        validate_prompts(section("json_schema"), [prompt(schema=outside)])
    with pytest.raises(ConfigError, match=r"json_schema refers to https://example.org/schema.json"):
        build_verifier(section("json_schema", json_schema=outside))
