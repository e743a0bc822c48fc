"""Recipes: located faults, overrides, and a resolved copy that loads back to the same config."""

import json
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, field_validator

from fairlead.core.config import (
    Config,
    apply_sets,
    known_keys,
    load_recipe,
    parse_config,
    parse_yaml,
    resolved,
    write_resolved,
)
from fairlead.core.errors import ConfigError, DataError


class Optim(Config):
    """Inner section."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak."""
    schedule: Literal["linear", "cosine"] = "cosine"
    """Shape."""
    clip: float | None = None
    """null is off."""


class Word(Config):
    """One of two kinds."""

    kind: Literal["word"]
    """Which."""
    text: str = ""
    """What it says."""


class Number(Config):
    """The other kind."""

    kind: Literal["number"]
    """Which."""
    value: float = Field(default=0.0, gt=-1)
    """How much."""


Part = Annotated[Word | Number, Field(discriminator="kind")]


class Parts(Config):
    """Unions that a key tells apart, at every depth."""

    one: Part | None = None
    """Bare."""
    plain: Word | Number = Field(default=Number(kind="number"), discriminator="kind")
    """By the field itself."""
    by_name: dict[str, Part] = Field(default_factory=dict)
    """In a mapping."""
    in_rows: tuple[tuple[Part, ...], ...] = ()
    """In lists of lists."""
    by_step: dict[int, str] = Field(default_factory=dict)
    """No union."""


class Policies(Config):
    """Middle section."""

    optim: Optim = Optim()
    """Optimiser."""
    group_size: int
    """Completions a prompt."""
    stages: tuple[Optim, ...] = ()
    """Several."""

    @field_validator("group_size")
    @classmethod
    def _two(cls, value: int) -> int:
        if value < 2:
            raise ValueError("group_size gives zero advantages; expected >= 2. Raise it.")
        return value


class Recipe(Config):
    """Root."""

    policies: Policies
    """Training."""
    name: str = "run"
    """Label."""


def fault(text, cls=Recipe, sets=()):
    with pytest.raises(ConfigError) as caught:
        parse_config(cls, apply_sets(parse_yaml(text, where="r.yaml"), sets))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policies: {group_size: 4, optim: {lerning_rate: 1}}", ["policies.optim.lerning_rate=1", "did you mean learning_rate?", "schedule"]),
        ("polices: {group_size: 4}", ["polices=", "did you mean policies?", "1 more fault"]),
        ("policies: {group_size: 4, stages: [{clipp: 1}]}", ["policies.stages.0.clipp=1", "did you mean clip?"]),
        ("policies: {}", ["policies.group_size is missing", "--set policies.group_size=VALUE"]),
        ("policies: {group_size: four}", ["policies.group_size=four", "integer"]),
        ("policies: {group_size: 1}", ["policies.group_size: group_size gives zero advantages"]),
        ("policies: {group_size: 4, optim: {learning_rate: 0}}", ["policies.optim.learning_rate=0", "greater than 0"]),
        ("policies: {group_size: 4, optim: {learning_rate: .nan}}", ["policies.optim.learning_rate=nan", "finite"]),
        ("policies: {group_size: 4, optim: {learning_rate: .inf}}", ["policies.optim.learning_rate=inf", "finite"]),
        ("policies: {group_size: 4, optim: {schedule: step}}", ["policies.optim.schedule=step", "'linear' or 'cosine'"]),
        ("policies: {group_size: 4, optim: {schedule: cosin}}", ["policies.optim.schedule=cosin", "did you mean cosine?"]),
    ],
)  # fmt: skip
def test_faults_of_values_are_located(text, words):
    message = fault(text)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", ["r.yaml:3:1", "'a' is given twice"]),
        ("a:\n  b: 1\n  b: 2\n", ["r.yaml:3:3", "'b' is given twice"]),
        ("a: [1, 2\nb: 3\n", ["r.yaml:2", "is not YAML"]),
        ("? [1, 2]\n: 3\n", ["r.yaml:1:3", "used as a key"]),
        ("a: !!python/object/apply:os.system ['true']\n", ["r.yaml:1:4", "is not YAML"]),
        ("a: \x00", ["r.yaml", "is not YAML"]),
        ("[" * 1500, ["r.yaml", "is not YAML"]),
    ],
)
def test_faults_of_yaml_are_located(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, where="r.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_recipe_file_faults(tmp_path):
    path = tmp_path / "recipe.yaml"
    with pytest.raises(DataError, match="does not exist"):
        load_recipe(path)
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="is not UTF-8 at byte 6"):
        load_recipe(path)
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="is not a mapping"):
        load_recipe(path)
    path.write_text("")
    assert load_recipe(path, sets=["policies.group_size=4"]) == {"policies": {"group_size": 4}}


def test_an_alias_of_itself_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_text("a: &a [*a]\n")
    with pytest.raises(ConfigError, match="alias of itself"):
        load_recipe(tmp_path / "r.yaml")


def test_numbers_with_exponents_are_numbers():
    """YAML 1.1 reads 1e-5 as text."""
    assert parse_yaml("[1e-5, 2E3, 1.5e+2, '1e-5']", where="x") == [1e-5, 2000.0, 150.0, "1e-5"]


def test_sets_override_without_touching_the_source():
    data = parse_yaml("policies:\n  group_size: 4\nextra:\n", where="x")
    result = apply_sets(data, ["policies.group_size=8", "policies.optim.clip=null", "extra.deep=[1, 2]", "name=a=b"])
    assert result == {"policies": {"group_size": 8, "optim": {"clip": None}}, "extra": {"deep": [1, 2]}, "name": "a=b"}
    assert data == {"policies": {"group_size": 4}, "extra": None}


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("seed", "is not path=value"),
        ("=3", "is not path=value"),
        ("name.x=1", "goes below name"),
        ("a=[1", "--set a:1"),
    ],
)
def test_wrong_sets_are_located(item, words):
    with pytest.raises(ConfigError, match="--set") as caught:
        apply_sets({"name": "run"}, [item])
    assert words in str(caught.value)


@given(
    st.builds(
        Recipe,
        name=st.text(st.characters(exclude_categories=["Cs"])),
        policies=st.builds(
            Policies, group_size=st.integers(2, 64), optim=st.builds(Optim, learning_rate=st.floats(1e-12, 1e3), clip=st.none() | st.floats(-9, 9)),
            stages=st.lists(st.builds(Optim), max_size=2).map(tuple),
        ),
    )
)  # fmt: skip
def test_resolved_config_loads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "resolved.json"
    write_resolved(path, config)
    assert parse_config(Recipe, json.loads(path.read_text())) == config
    again = load_recipe_text(yaml.safe_dump(resolved(config), allow_unicode=True))
    assert again == config


def load_recipe_text(text):
    return parse_config(Recipe, parse_yaml(text, where="x"))


def test_configs_are_frozen_and_describe_themselves():
    config = Optim()
    with pytest.raises(ValueError, match="frozen"):
        config.schedule = "linear"
    assert Optim.model_fields["learning_rate"].description == "Peak."


def test_known_keys_go_through_lists_and_sections():
    assert known_keys(Recipe, ("policies", "stages", 0)) == ["clip", "learning_rate", "schedule"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one: {kind: number, value: -2}", ["one.value=-2 has a wrong value"]),
        ("one: {kind: number, values: 2}", ["one.values=2 is not a known key (did you mean value?); expected one of kind, value"]),
        ("plain: {kind: number, value: -2}", ["plain.value=-2 has a wrong value"]),
        ("by_name: {kind: {kind: number, value: -2}}", ["by_name.kind.value=-2 has a wrong value"]),
        ("by_name: {a: {kind: word, value: 2}}", ["by_name.a.value=2 is not a known key; expected one of kind, text"]),
        ("by_name: {a: {kind: wrd}}", ["by_name.a.kind=wrd is not known (did you mean word?)"]),
        ("by_name: {a: {text: x}}", ["by_name.a.kind is missing"]),
        ("in_rows: [[{kind: word}], [{kind: word}, {kind: number, value: -2}]]", ["in_rows.1.1.value=-2 has a wrong value"]),
        ("by_step: {a: x}", ["by_step.a=a has a wrong value; expected a valid integer"]),
    ],
)  # fmt: skip
def test_faults_within_unions_are_located(text, words):
    message = fault(text, cls=Parts)
    assert all(word in message for word in words), message
