"""The checks of the documentation find what they are for; each is shown a fault of its own."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import typer

from fairlead.cli.main import app
from fairlead.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("check_docs")


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("doc_blocks")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small site without faults."""
    for folder in ("docs/algorithms", "docs/stages", "recipes", "src/fairlead/bundled"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "docs/stages/sft.md").write_text("# Fine-tuning\n\n## How to choose\n")
    (tmp_path / "docs/algorithms/dpo.md").write_text("# Direct (`dpo`)\n")
    (tmp_path / "docs/README.md").write_text("[a](stages/sft.md#how-to-choose) [b](algorithms/dpo.md)\n")
    return tmp_path


def test_a_site_without_faults_passes(checks: ModuleType, site: Path):
    assert not [*checks.broken_links(site), *checks.forbidden_words(site), *checks.broken_recipes(site)]
    assert not [*checks.missing_pages(site, algorithms=["dpo"], sections=["sft", "seed"])]


def test_links_to_missing_files_and_headings_are_found(checks: ModuleType, site: Path):
    (site / "docs/stages/sft.md").write_text("[x](nothing.md) [y](../README.md#no-such-heading) ![z](picture.png)\n")
    found = list(checks.broken_links(site))
    assert (
        sum("links to" in fault for fault in found) == 4
    )  # the map's own link to the heading that is gone is the fourth
    assert any("#no-such-heading" in fault for fault in found)


def test_links_inside_code_are_not_links(checks: ModuleType, site: Path):
    (site / "docs/stages/sft.md").write_text("## How to choose\n\n```\n[x](nothing.md)\n```\n")
    assert not list(checks.broken_links(site))


def test_missing_pages_are_found(checks: ModuleType, site: Path):
    (site / "docs/stages/ppo.md").write_text("# PPO\n")
    found = list(checks.missing_pages(site, algorithms=["dpo", "kto"], sections=["sft", "completions", "brand_new"]))
    assert [word for word in ("`kto`", "completions.md", "brand_new", "does not link to stages/ppo.md") if any(word in f for f in found)] == [
        "`kto`", "completions.md", "brand_new", "does not link to stages/ppo.md",
    ]  # fmt: skip
    assert len(found) == 4


def test_gates_without_a_page_and_names_that_are_no_gates_are_found(checks: ModuleType, site: Path):
    (site / "docs/stages/sft.md").write_text(
        "| gate | stops |\n|---|---|\n| `sft.count` | never |\n| `sft.perplexty` | 1 |\n"
    )
    found = list(checks.unexplained_gates(site, gates=["sft.count", "sft.perplexity"]))
    assert len(found) == 2
    assert "did you mean sft.perplexity" in found[0]
    assert "no table of gates names sft.perplexity" in found[1]


@pytest.mark.parametrize(
    "text", ["see /" + "work/main", "open('/" + "root/x')", "/" + "home/ann/x", "https://" + "pypi" + ".org/simple"]
)
def test_machine_paths_and_registry_hosts_are_found(checks: ModuleType, site: Path, text: str):
    (site / "src/fairlead/a.py").write_text(f"x = 1\n# {text}\n")
    assert [fault.split(":")[1] for fault in checks.forbidden_words(site)] == ["2"]


def test_ordinary_paths_are_allowed(checks: ModuleType, site: Path):
    relative = "/".join(("runs", "work", "x"))
    (site / "src/fairlead/a.py").write_text(
        f"folder = home / 'work' / key  # {relative}, https://pytorch.org/get-started/locally/\n"
    )
    assert not list(checks.forbidden_words(site))


def test_recipes_and_examples_that_do_not_load_are_found(checks: ModuleType, site: Path):
    (site / "recipes/a.yaml").write_text("name: a\nrewards: {}\n")
    (site / "docs/stages/sft.md").write_text("## How to choose\n\n```yaml\nsft:\n  dataa: []\n```\n")
    found = list(checks.broken_recipes(site))
    assert len(found) == 2
    assert "recipes/a.yaml" in found[0]
    assert "dataa" in found[1]


def test_an_unknown_section_in_an_example_names_the_nearest(checks: ModuleType):
    with pytest.raises(ConfigError, match="did you mean rewards"):
        checks.check_example("reward: {}\n")


def test_generated_parts_that_differ_are_found_and_written(checks: ModuleType, site: Path):
    page = site / "docs/cli.md"
    page.write_text("before\n<!-- commands:start -->\nold\n<!-- commands:end -->\nafter\n")
    assert ["docs/cli.md" in fault for fault in checks.generated_parts(site, write=False)] == [True]
    assert page.read_text().count("old") == 1
    assert not list(checks.generated_parts(site, write=True))
    text = page.read_text()
    assert text.startswith("before\n<!-- commands:start -->\n## `fairlead`")
    assert text.endswith("<!-- commands:end -->\nafter\n")
    assert not list(checks.generated_parts(site, write=False))


def test_the_repository_has_no_fault(checks: ModuleType):
    assert checks.all_faults(ROOT, write=False) == []


def test_every_command_and_option_is_on_the_page(blocks: ModuleType):
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = {part.split("`")[0]: part for part in text.split("\n## `")[1:]}
    found = dict(blocks.commands(typer.main.get_command(app)))
    assert set(sections) == set(found)
    assert len(found) > 15
    for path, command in found.items():
        for parameter in command.params:
            for name in parameter.opts if parameter.param_type_name == "option" else ():
                assert f"| `{name}" in sections[path], f"{path} {name}"


def test_every_field_of_every_section_is_on_the_page_with_its_meaning(blocks: ModuleType):
    text = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    for section in blocks.recipe_sections():
        for name, info in section.cls.model_fields.items():
            assert info.description, f"{section.cls.__name__}.{name} has no docstring"
            assert f"| `{name}` |" in text
            assert " ".join(info.description.split()).replace("|", r"\|") in text
