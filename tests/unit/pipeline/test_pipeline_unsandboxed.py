"""--allow-unsandboxed is the recipe's key in every section that runs programs of a policy, and stands in the config that a manifest keeps."""

from pathlib import Path

import pytest
import yaml

from fairlead.core.config import resolved
from fairlead.core.errors import ConfigError
from fairlead.pipeline.recipe import load

CODE = {"type": "verifier", "verifier": {"kind": "code"}}
POLICY = {
    "algorithm": "grpo",
    "rewards": {"components": {"tests": CODE, "short": {"type": "rule", "rule": {"kind": "length", "max_words": 9}}}},
}
KEY = "policies.{}.rewards.components.tests.verifier.allow_unsandboxed=true"


def write(folder: Path, policies: dict) -> Path:
    recipe = {
        "name": "t",
        "scope": "toy",
        "model": "bundled",
        "prompts": {"sources": [{"path": "p.jsonl"}]},
        "policies": policies,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_the_flag_is_the_key_everywhere(tmp_path: Path) -> None:
    path = write(tmp_path, {"one": POLICY, "two": POLICY})
    flagged = load(path, allow_unsandboxed=True)
    assert flagged == load(path, sets=(KEY.format("one"), KEY.format("two"))) != load(path)
    for policy in flagged.policies.values():
        kept = resolved(policy)["rewards"]["components"]
        assert kept["tests"]["verifier"] == {
            "kind": "code",
            "allow_unsandboxed": True,
        } and "allow_unsandboxed" not in str(kept["short"])


def test_where_nothing_runs_programs_it_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"one": {**POLICY, "rewards": {"components": {"short": POLICY["rewards"]["components"]["short"]}}}}
    )
    with pytest.raises(ConfigError, match="--allow-unsandboxed has nothing to allow"):
        load(path, allow_unsandboxed=True)
