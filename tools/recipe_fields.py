"""The recipe as a tree of fields, read off the config classes: what docs/recipe.md is written from and docs/defaults.md is held against.

Example:
    default_at("policies.ppo.kl.kl_coef")        # 0.2
    for section in recipe_sections(): ...
"""

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fairlead.core.config import Config
from fairlead.pipeline.recipe import Recipe

REQUIRED = "required"
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
_SIGNS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"), ("min_length", "at least"))


@dataclass(slots=True, kw_only=True)
class Section:
    """A config class and where a recipe holds it."""

    cls: type[Config]
    paths: list[str] = field(default_factory=list[str])
    siblings: tuple[type[Config], ...] = ()
    """Classes that may stand at the same place."""

    def choice(self) -> str:
        """`algorithm: ppo` where a key decides between siblings, else empty."""
        if len(self.siblings) < 2:
            return ""
        for name, info in self.cls.model_fields.items():
            if typing.get_origin(info.annotation) is Literal:
                return f"{name}: {', '.join(map(str, typing.get_args(info.annotation)))}"
        return ""


def recipe_sections() -> list[Section]:
    """Every config class that a recipe can hold, in the order of the recipe, each once with all its places."""
    found: dict[type[Config], Section] = {Recipe: Section(cls=Recipe, paths=[""])}
    _visit(Recipe, "", found)
    return list(found.values())


def _visit(cls: type[Config], path: str, found: dict[type[Config], Section]) -> None:
    for name, info in cls.model_fields.items():
        inner = tuple(configs_in(info.annotation))
        for child in inner:
            place = ".".join(part for part in (path, name + _suffix(info.annotation)) if part)
            is_new = child not in found
            section = found.setdefault(child, Section(cls=child, siblings=inner))
            if place not in section.paths:
                section.paths.append(place)
            if is_new or path:
                _visit(child, place, found)


def _suffix(hint: Any) -> str:
    """How a path goes on through a list or a mapping."""
    text = str(hint)
    return ".NAME" if "dict[" in text else "[]" if "tuple[" in text or "list[" in text else ""


def configs_in(hint: Any) -> Iterator[type[Config]]:
    """Config classes inside an annotation."""
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
        if issubclass(hint, Config):
            yield hint
        return
    for argument in typing.get_args(hint):
        yield from configs_in(argument)


def describe_type(info: FieldInfo) -> str:
    """The kind of a value with its bounds: `whole number >= 1`."""
    bounds = [
        f"{sign} {getattr(m, key):g}"
        for m in info.metadata
        for key, sign in _SIGNS
        if getattr(m, key, None) is not None
    ]
    kind, null, _ = _describe(info.annotation).partition(" or null")
    return " ".join([kind, ", ".join(bounds)]).strip() + null


def _describe(hint: Any) -> str:
    if hint in _WORDS:
        return _WORDS[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in args)
    if origin in (typing.Union, types.UnionType):
        kinds = dict.fromkeys(_describe(a) for a in args)
        return (", " if all(kind.startswith("`") for kind in kinds) else " or ").join(kinds)
    if origin is typing.Annotated:
        return _describe(args[0])
    if origin in (tuple, list):
        return f"list of {_describe(args[0])}"
    if origin is dict:
        return f"name to {_describe(args[1])}"
    return "section" if list(configs_in(hint)) else getattr(hint, "__name__", str(hint))


def default_of(info: FieldInfo) -> Any:
    """The default value, or REQUIRED."""
    value = info.get_default(call_default_factory=True, validated_data={})
    return REQUIRED if value is PydanticUndefined else value


def default_at(path: str) -> Any:
    """The default at a recipe path; a policy is named by its algorithm.

    Raises:
        KeyError: no such path.
    """
    cls: type[Config] = Recipe
    given: Config | None = None
    *parents, last = path.split(".")
    while parents:
        name = parents.pop(0)
        value, info = _value(cls, given, name, path)
        given = value if isinstance(value, Config) else None
        cls = type(given) if given is not None else _class_at(info, parents, last, path)
    return _value(cls, given, last, path)[0]


def _value(cls: type[Config], given: Config | None, name: str, path: str) -> tuple[Any, FieldInfo]:
    info = cls.model_fields.get(name)
    if info is None:
        raise KeyError(f"{path}: the recipe has no {name} there")
    return (getattr(given, name) if given is not None else default_of(info)), info


def _class_at(info: FieldInfo, parents: list[str], last: str, path: str) -> type[Config]:
    """The class of a section that is absent by default; the next name decides between several."""
    classes = list(configs_in(info.annotation))
    if "dict[" in str(info.annotation) and parents:
        algorithm = parents.pop(0)
        classes = [c for c in classes if algorithm in typing.get_args(c.model_fields["algorithm"].annotation)]
    name = parents[0] if parents else last
    fitting = [c for c in classes if name in c.model_fields]
    if not fitting:
        raise KeyError(f"{path}: the recipe has no {name} there")
    return fitting[0]
