"""Which tools an evaluation asks policies with."""

import pytest
from pydantic import ValidationError

from fairlead.pipeline.recipe import Recipe, evals_of

CALCULATOR = {"environments": [{"kind": "calculator"}]}
PYTHON = {"environments": [{"kind": "python"}], "max_turns": 3}
RULES = {"components": {"right": {"type": "verifier", "verifier": {"kind": "math"}}}}


def recipe(*tools: object, **evals: object) -> Recipe:
    policies = {
        f"p{i}": {"algorithm": "grpo", "rewards": RULES} | ({} if section is None else {"tools": section})
        for i, section in enumerate(tools)
    }
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
    with pytest.raises(ValidationError, match=r"evals\.tools.*the tools of p0, p1 differ"):
        recipe(CALCULATOR, PYTHON)
    assert evals_of(recipe(CALCULATOR, PYTHON, tools=PYTHON)).tools.max_turns == 3
