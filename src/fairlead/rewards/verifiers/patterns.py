"""Regular expressions and JSON schemas, of the recipe or of each prompt.

Python's matcher can take exponential time on a pattern and a text that fits it; it runs in a worker process, whose time is limited.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.io import parse_json
from fairlead.core.records import Completion, Prompt
from fairlead.rewards.verifiers.config import JsonSchemaSection, RegexSection
from fairlead.rewards.verifiers.extraction import find_answer
from fairlead.rewards.verifiers.references import fault, read_mapping, read_text

_FENCE = re.compile(
    r"^[ \t]*```[ \t]*(?:json)?[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegexMatch:
    """1 where the pattern matches, 0 elsewhere. Stateless; picklable; has no time limit of its own."""

    section: RegexSection
    version = "1"

    def validate(self, prompt: Prompt) -> bool:
        """Does it apply? Raises DataError for a pattern that is none."""
        return self._pattern(prompt) is not None

    def _pattern(self, prompt: Prompt) -> re.Pattern[str] | None:
        text = read_text(prompt, self.section.field) if self.section.pattern is None else self.section.pattern
        if text is None:
            return None
        try:
            return re.compile(text, self.section.flags())
        except re.error as error:
            raise fault(
                prompt, self.section.field, f"is not a regular expression ({error})", expected="Python's syntax"
            ) from error

    def check(self, prompt: Prompt, completion: Completion) -> float:
        """0, 1, or NaN for a prompt without a pattern."""
        pattern = self._pattern(prompt)
        if pattern is None:
            return float("nan")
        answer = find_answer(completion.text, self.section.extract, after=self.section.after) or ""
        match = pattern.search if self.section.match == "search" else pattern.fullmatch
        return float(match(answer) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """1 for a reply that is JSON and fits the schema, 0 for another. Stateless; picklable. References lead nowhere outside the schema."""

    section: JsonSchemaSection
    version = "1"

    def __post_init__(self) -> None:
        if self.section.json_schema is not None and (wrong := fault_of_schema(self.section.json_schema)):
            raise ConfigError(
                explain(
                    "json_schema", None, wrong, expected="a JSON schema that is complete in itself", remedy="Repair it"
                )
            )

    def validate(self, prompt: Prompt) -> bool:
        """Does it apply? Raises DataError for a schema that is none, or that refers to another document."""
        schema = self._schema(prompt)
        if schema is None:
            return False
        if self.section.json_schema is None and (wrong := fault_of_schema(schema)):
            raise fault(prompt, self.section.field, wrong, expected="a JSON schema that is complete in itself")
        return True

    def _schema(self, prompt: Prompt) -> Mapping[str, Any] | None:
        return (
            read_mapping(prompt, self.section.field) if self.section.json_schema is None else self.section.json_schema
        )

    def check(self, prompt: Prompt, completion: Completion) -> float:
        """0, 1, or NaN for a prompt without a schema."""
        schema = self._schema(prompt)
        if schema is None:
            return float("nan")
        text = find_json(completion.text, self.section.extract)
        try:
            value = parse_json(text, "reply")
        except (DataError, RecursionError):
            return 0.0
        return float(_validator(json.dumps(schema)).is_valid(value))


def find_json(text: str, which: str) -> str:
    """The JSON of a reply: all of it, or the last fenced block where there is one."""
    blocks = _FENCE.findall(text) if which == "last_block" else []
    return blocks[-1] if blocks else text


@functools.lru_cache(maxsize=1024)
def _validator(schema: str) -> Any:
    """A validator by the schema's text; an empty registry, so that no reference is fetched."""
    import jsonschema.validators
    import referencing

    parsed = json.loads(schema)
    kind = jsonschema.validators.validator_for(parsed, default=jsonschema.validators.Draft202012Validator)
    return kind(parsed, registry=referencing.Registry())


def fault_of_schema(schema: Mapping[str, Any]) -> str:
    """What is wrong with a schema, in words; empty when it can be used."""
    import jsonschema
    import jsonschema.validators

    kind = jsonschema.validators.validator_for(schema, default=jsonschema.validators.Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        return f"is no schema ({error.message} at {error.json_path})"
    outside = [ref for ref in _references(schema) if not ref.startswith("#")]
    return f"refers to {outside[0]}, which is not fetched" if outside else ""


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from (ref for key in ("$ref", "$dynamicRef") if isinstance(ref := value.get(key), str))
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _references(inner)
