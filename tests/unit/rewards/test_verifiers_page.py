"""docs/stages/verifiers.md: its examples are read and verified as they stand, and every option is named there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from verifier_example import prompt, reply, section

from fairlead.core.io import Rejects
from fairlead.formats import read_prompts
from fairlead.rewards.verifiers import VERIFIERS, build_verifier
from fairlead.rewards.verifiers.config import VerifierSection
from fairlead.rewards.verifiers.instructions import INSTRUCTIONS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "stages" / "verifiers.md").read_text(encoding="utf-8")
EXAMPLES: list[dict[str, Any]] = [
    json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
]


def test_the_example_of_a_row_keeps_its_answer(tmp_path: Path):
    (row,) = [example for example in EXAMPLES if "messages" in example]
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        (found,) = read_prompts(path, format="fairlead_prompts", rejects=rejects)
    assert found.slice == "math"
    assert build_verifier(section("math")).check(found, reply(r"\boxed{72}")) == 1


@pytest.mark.parametrize(("kind", "field"), [("code", "tests"), ("instructions", "instruction_id_list")])
def test_the_examples_of_meta_are_read(kind: str, field: str):
    (meta,) = [example for example in EXAMPLES if field in example]
    options = {"allow_unsandboxed": True} if kind == "code" else {}
    assert build_verifier(section(kind, **options)).validate(prompt(**meta))


def test_every_kind_option_and_instruction_is_on_the_page():
    classes = VerifierSection.__args__[0].__args__  # type: ignore[attr-defined]
    assert len(classes) == len(VERIFIERS)
    missing = [
        f"`{name}`" for cls in classes for name in cls.model_fields if name != "kind" and f"`{name}`" not in PAGE
    ]
    missing += [f"`{kind}`" for kind in VERIFIERS if f"`{kind}`" not in PAGE]
    missing += [name for name in INSTRUCTIONS if name.split(":")[1] not in PAGE]
    assert missing == []
