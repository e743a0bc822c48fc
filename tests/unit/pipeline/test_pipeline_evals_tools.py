"""What an evaluation has policies write under: tools, stop texts and a repetition penalty, their own where they agree."""

import pytest
from pydantic import ValidationError

from fairlead.pipeline.recipe import Recipe, evals_of

CALCULATOR = {"environments": [{"kind": "calculator"}]}
PYTHON = {"environments": [{"kind": "python"}], "max_turns": 3}
RULES = {"components": {"right": {"type": "verifier", "verifier": {"kind": "math"}}}}


def recipe(*tools: object, **evals: object) -> Recipe:
    return written_under(*({} if section is None else {"tools": section} for section in tools), **evals)


def written_under(*settings: dict[str, object], **evals: object) -> Recipe:
    policies = {f"p{i}": {"algorithm": "best_of_n", "rewards": RULES} | own for i, own in enumerate(settings)}
    return Recipe.model_validate(
        {
            "name": "r",
            "text": {"max_length": 1024},
            "model": "bundled",
            "prompts": {"sources": [{"path": "p.jsonl"}]},
            "policies": policies,
            "evals": evals,
        }
    )


def test_evaluations_take_the_tools_of_the_policies_where_these_agree() -> None:
    assert evals_of(recipe(None)).tools is None
    found = evals_of(recipe(None, CALCULATOR, CALCULATOR))
    assert found.tools.environments[0].kind == "calculator" and found.max_added_tokens == 3 * 64
    assert evals_of(recipe(None)).max_added_tokens == 0


def test_tools_that_differ_must_be_named() -> None:
    with pytest.raises(ValidationError, match=r"evals\.tools.*tools of p0, p1 differs"):
        recipe(CALCULATOR, PYTHON)
    assert evals_of(recipe(CALCULATOR, PYTHON, tools=PYTHON)).tools.max_turns == 3


def test_evaluations_sample_under_the_stop_texts_and_penalty_of_the_policies() -> None:
    own = {"stop": ["###"], "repetition_penalty": 1.2}
    for policies in ([own], [own, {}], [own, own]):
        found = evals_of(written_under(*policies))
        assert (found.stop, found.repetition_penalty, found.has_penalty) == (("###",), 1.2, True)
    plain = evals_of(written_under({}))
    assert (plain.stop, plain.repetition_penalty, plain.has_penalty) == ((), 1.0, False)
    named = evals_of(written_under(own, stop=[], repetition_penalty=1.0))
    assert (named.stop, named.has_penalty) == ((), False)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([{"stop": ["a"]}, {"stop": ["b"]}], r"evals\.stop is left out, and stop of p0, p1 differs"),
        ([{"repetition_penalty": 1.2}, {"repetition_penalty": 1.3}], r"evals\.repetition_penalty is left out"),
        (
            [{"stop": ["a"]}, {"tools": CALCULATOR}],
            r"evals\.stop=a ends a turn before its end of turn.*Set evals\.stop: \[\]",
        ),
    ],
)
def test_policies_that_cannot_be_compared_under_one_setting_are_said(
    policies: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        written_under(*policies)
