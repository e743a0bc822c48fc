"""What the inputs of an artifact are called in its lineage."""

import typing
from pathlib import Path

import pytest

from fairlead.algos import get_algorithm
from fairlead.cli.lineage import WITHOUT_REFERENCE, role_words
from fairlead.policies.dpo_config import DpoConfig
from fairlead.store.manifest import Artifact


def artifact(kind: str, *roles: str, algorithm: str | None = None) -> Artifact:
    config = {} if algorithm is None else {"algorithm": algorithm}
    manifest = {"inputs": {role: f"{role}-1" for role in roles}, "config": config}
    return Artifact(id=f"{kind}-1", kind=kind, stage=kind, path=Path(), manifest=manifest)


@pytest.mark.parametrize(
    ("made", "role", "words"),
    [
        (artifact("policy", algorithm="ppo"), "policy", "start and reference"),
        (artifact("policy", algorithm="simpo"), "policy", "start"),
        (artifact("policy"), "rewards", "reward model"),
        (artifact("policy"), "rewards.kind", "reward model kind"),
        (artifact("policy"), "preferences", "preferences"),
        (artifact("reward_model", "policy"), "policy", "start"),
        (artifact("reward_model", "policy", "start"), "policy", "template and tokenizer"),
        (artifact("reward_model", "policy", "start"), "start", "earlier reward model"),
        (artifact("evaluation"), "before", "reference"),
        (artifact("evaluation"), "policy.dpo", "policy dpo"),
    ],
)
def test_roles_in_words(made: Artifact, role: str, words: str) -> None:
    assert role_words(made, role) == words


def test_algorithms_without_a_reference_are_those_that_need_none() -> None:
    names = typing.get_args(DpoConfig.model_fields["algorithm"].annotation)
    assert {name for name in names if "ref_logprobs" not in get_algorithm(name).needs} == WITHOUT_REFERENCE
