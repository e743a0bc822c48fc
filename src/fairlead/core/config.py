"""Recipe loading: YAML, `--set path=value`, located errors that suggest the nearest name, a resolved copy that loads back.

Only this file imports pydantic and PyYAML. Stage configs derive from `Config`.

Example:
    data = load_recipe("recipe.yaml", sets=["policies.ppo.seed=1"])
    recipe = parse_config(Recipe, data)
"""

import re
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pydantic
import yaml

from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.io import require_file, write_json


class Config(pydantic.BaseModel):
    """Base of all recipe sections: frozen, unknown keys refused, defaults validated, docstrings become descriptions."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True,
                                       allow_inf_nan=False, protected_namespaces=())  # fmt: skip


AnyConfig = TypeVar("AnyConfig", bound=Config)


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, reads 1e-5 as a number and `off` as a word (YAML 1.1 does neither)."""


def _construct_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    construct = cast(Callable[..., Any], loader.construct_object)  # pyright: ignore[reportUnknownMemberType] - no stub
    for key_node, _ in node.value:
        key = construct(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(
                None, None, "a list or mapping is used as a key", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=deep)


_BOOL_TAG = "tag:yaml.org,2002:bool"
# YAML 1.1 reads off, on, yes and no as truth values; a recipe's `margin: off` is a word, as in YAML 1.2.
_UniqueKeyLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != _BOOL_TAG]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_UniqueKeyLoader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] - untyped stub
    _BOOL_TAG, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
_UniqueKeyLoader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType] - untyped stub
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_recipe(path: Path | str, *, sets: Iterable[str] = ()) -> dict[str, Any]:
    """Read a YAML recipe and apply `path=value` overrides (values are YAML too)."""
    path = Path(path)
    require_file(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            explain(path, None, f"is not UTF-8 at byte {error.start}", expected="UTF-8 text", remedy="Convert it")
        ) from error
    data = parse_yaml(text, where=str(path))
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(
            explain(path, None, "is not a mapping", expected="`key: value` lines", remedy="See recipes/ for examples")
        )
    return apply_sets(cast(dict[str, Any], data), sets)


def parse_yaml(text: str, *, where: str) -> Any:
    """Parse YAML text with safe types only; the error names line and column."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        raise ConfigError(
            explain(place, None, f"is not YAML ({error.problem})", expected="valid YAML", remedy="Fix that line")
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            explain(where, None, f"is not YAML ({error})", expected="valid YAML", remedy="Fix the text")
        ) from error


def apply_sets(data: dict[str, Any], sets: Iterable[str]) -> dict[str, Any]:
    """Return a copy of nested `data` with each `a.b=value` applied."""
    try:
        result: dict[str, Any] = _copy(data)
    except RecursionError as error:
        raise ConfigError(
            explain("recipe", None, "contains an alias of itself", expected="a tree", remedy="Write it out")
        ) from error
    for item in sets:
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise ConfigError(
                explain(
                    "--set", item, "is not path=value", expected="for example policies.ppo.seed=1", remedy="Add the ="
                )
            )
        target: dict[str, Any] = result
        *parents, last = key.strip().split(".")
        for parent in parents:
            if target.get(parent) is None:  # absent, or `parent:` with nothing below it
                target[parent] = {}
            child = target[parent]
            if not isinstance(child, dict):
                raise ConfigError(
                    explain(
                        f"--set {key}",
                        text,
                        f"goes below {parent}, which is a value",
                        expected="a section",
                        remedy="Fix the path",
                    )
                )
            target = cast(dict[str, Any], child)
        target[last] = parse_yaml(text, where=f"--set {key}")
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copy(v) for k, v in cast(Mapping[Any, Any], value).items()}
    return [_copy(v) for v in cast(list[Any], value)] if isinstance(value, list) else value


def parse_config(cls: type[AnyConfig], data: Mapping[str, Any], *, where: str = "") -> AnyConfig:
    """Validate `data`; the first error is reported by its recipe path, with the nearest known name for an unknown key.

    Raises:
        ConfigError: names path, value, rule and remedy.
    """
    try:
        return cls.model_validate(dict(data))
    except pydantic.ValidationError as error:
        raise ConfigError(_first_error(cls, error, where)) from error


def _first_error(cls: type[Config], error: pydantic.ValidationError, where: str) -> str:
    faults = _causes(error.errors(include_url=False))
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    path = ".".join([*([where] if where else []), *_place(cls, fault["loc"])[0]])
    num_more = len(faults) - 1
    more = f" ({num_more} more fault{'' if num_more == 1 else 's'})" if num_more else ""
    if fault["type"] == "extra_forbidden":
        known = known_keys(cls, fault["loc"][:-1])
        return explain(path, fault["input"], f"is not a known key{nearest(str(fault['loc'][-1]), known)}",
                       expected="one of " + ", ".join(known), remedy=f"Rename or remove it{more}")  # fmt: skip
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        context = fault.get("ctx", {})
        key, tag = context.get("discriminator", "").strip("'"), context.get("tag")
        known = [name.strip(" '") for name in context.get("expected_tags", "").split(",") if name]
        wrong = f"is not known{nearest(tag, known)}" if tag is not None else "is missing"
        return explain(
            f"{path}.{key}",
            tag,
            wrong,
            expected="one of " + ", ".join(known) if known else "a kind",
            remedy=f"Name one{more}",
        )
    if fault["type"] == "missing":
        return explain(
            path,
            None,
            "is missing",
            expected="a value",
            remedy=f"Add it to the recipe or pass --set {path}=VALUE{more}",
        )
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{path}: {message}" if path else message
    rule = message[0].lower() + message[1:].partition(", unable to ")[0]
    options = re.findall(r"'([^']+)'", rule) if fault["type"] == "literal_error" else []
    return explain(
        path,
        fault["input"],
        f"has a wrong value{nearest(str(fault['input']), options)}",
        expected=rule.removeprefix("input should be "),
        remedy=f"Change it{more}",
    )


def _causes(faults: Sequence[Any]) -> list[Any]:
    """Faults without those of lists that are long enough as they were given: pydantic counts the right entries alone."""
    return [f for f in faults if f["type"] != "too_short" or len(f["input"]) < f["ctx"]["min_length"]]


def known_keys(cls: type[Config], path: Iterable[Any]) -> list[str]:
    """Names of the fields at a path inside a config class (through optional sections, lists and unions)."""
    return sorted({name for c in _place(cls, path)[1] for name in c.model_fields})


def _place(cls: type[Config], location: Iterable[Any]) -> tuple[list[str], list[type[Config]]]:
    """Recipe path of one of pydantic's locations, without the members of unions that it names, and the config classes at its end."""
    hints, parts, tag, num_keys = list[Any]([cls]), list[str](), "", 0
    for part in location:
        classes = [c for hint in hints for c in _configs_in(hint)]
        if part == "[key]":  # of a mapping whose key is wrong, which was named before
            continue
        if tag and num_keys:  # the key of a mapping, or the place in a list, that holds the union
            parts.append(str(part))
            num_keys -= 1
            continue
        if tag:  # a location goes on with the value of the key that chooses the member
            hints, tag = [c for c in classes if part in typing.get_args(c.model_fields[tag].annotation)], ""
            continue
        if members := [c for c in classes if part == c.__name__ or str(part).rstrip("]").endswith(f" {c.__name__}")]:
            hints = members  # by its name, or by those of the validators around it
            continue
        if not classes and isinstance(part, str) and not any(typing.get_origin(hint) is dict for hint in hints):
            continue  # `str` or `tuple[str, ...]` of a union of plain values
        parts.append(str(part))
        found = [c.model_fields[part] for c in classes if part in c.model_fields]
        if found:
            hints = [field.annotation for field in found]
            own = [(str(field.discriminator), 0) for field in found if field.discriminator]
            tag, num_keys = next((one for one in (*own, *map(_discriminator, hints)) if one[0]), ("", 0))
    return parts, [c for hint in hints for c in _configs_in(hint)]


def _discriminator(hint: Any) -> tuple[str, int]:
    """Name of the key that chooses among the members of a union, and the mappings and lists around it; empty when there is none."""
    for meta in getattr(hint, "__metadata__", ()):
        if name := getattr(meta, "discriminator", None):
            return str(name), 0
    around = int(typing.get_origin(hint) in (dict, list, tuple))
    inner = (_discriminator(argument) for argument in typing.get_args(hint))
    return next(((name, num + around) for name, num in inner if name), ("", 0))


def _configs_in(hint: Any) -> list[type[Config]]:
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and issubclass(hint, Config):
        return [hint]
    return [found for argument in typing.get_args(hint) for found in _configs_in(argument)]


def resolved(config: Config) -> dict[str, Any]:
    """Every key with its final value, as plain data that loads back to an equal config."""
    return config.model_dump(mode="json")


def write_resolved(path: Path | str, config: Config) -> None:
    """Write the resolved copy beside an artifact."""
    write_json(path, resolved(config))
