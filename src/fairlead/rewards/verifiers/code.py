"""Does a program pass its prompt's tests? Every program runs in the box of rewards/sandbox.

Tests of a prompt, in `meta`:

    {"stdin": "3 4\\n", "stdout": "7\\n"}                    the completion is a program; its output is compared line by line, without
                                                            spaces at ends of lines and empty lines at the end
    {"call": "add", "args": [3, 4], "returns": 7}           the completion defines a function; numbers that are not whole are compared within 1e-9
    "assert add(3, 4) == 7"                                 statements after the completion, in its own process

The first two are decided outside the box, where the completion cannot reach. The third is only as honest as the completion: a value whose
`__eq__` always says yes passes it.
"""

import functools
import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.core.records import Completion, Prompt
from fairlead.rewards import sandbox
from fairlead.rewards.sandbox import Limits, Ran, run_python
from fairlead.rewards.verifiers.config import CodeSection
from fairlead.rewards.verifiers.references import fault

_BLOCK = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_PYTHON = ("", "python", "py", "python3")
_KINDS: Mapping[str, tuple[set[str], set[str]]] = {
    "stdin": ({"stdout"}, {"stdin", "stdout"}),
    "call": ({"call", "returns"}, {"call", "args", "kwargs", "returns"}),
}
"""Kind of test -> fields that it must have, and may have."""
_RELATIVE_ERROR = 1e-9
_MAX_TESTS = 1000


def find_code(text: str, which: str) -> str | None:
    """The program in a reply: the last or the first fenced block of Python, all such blocks together, or the whole text."""
    if which == "whole":
        return text
    blocks = [match[2] for match in _BLOCK.finditer(text) if match[1].lower() in _PYTHON]
    if not blocks:
        return None
    return {"last_block": blocks[-1], "first_block": blocks[0], "all_blocks": "\n".join(blocks)}[which]


def read_tests(prompt: Prompt, field: str) -> tuple[Any, ...]:
    """The tests of a prompt; empty when it has none.

    Raises:
        DataError: a test that is none of the three kinds.
    """
    value = prompt.meta.get(field)
    if value is None:
        return ()
    tests: Sequence[Any] = (value,) if isinstance(value, str) else value
    if not isinstance(tests, (list, tuple)) or not 1 <= len(tests) <= _MAX_TESTS:
        raise fault(prompt, field, "is no list of tests", expected=f"1 to {_MAX_TESTS} tests")
    for i, test in enumerate(tests):
        if wrong := _fault_of(test):
            raise fault(
                prompt, f"{field}[{i}]", wrong, expected="{stdin, stdout}, {call, args, returns}, or a statement"
            )
    return tuple(tests)


def _fault_of(test: object) -> str:
    if isinstance(test, str):
        return "" if test.strip() else "is empty"
    if not isinstance(test, Mapping):
        return "is neither an object nor text"
    needed, allowed = _KINDS["call" if "call" in test else "stdin"]
    if missing := needed - test.keys():
        return f"has no {', '.join(sorted(missing))}"
    if unknown := test.keys() - allowed:
        return f"has unknown {', '.join(sorted(unknown))}"
    texts = [test[name] for name in ("stdin", "stdout", "call") if name in test]
    is_typed = isinstance(test.get("args", []), (list, tuple)) and isinstance(test.get("kwargs", {}), Mapping)
    return "" if is_typed and all(isinstance(text, str) for text in texts) else "has a field of the wrong kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests:
    """Passes all tests: 1, else 0; or the share that it passes. Stateless; picklable."""

    section: CodeSection
    version = "1"

    def __post_init__(self) -> None:
        if not self.section.allow_unsandboxed:
            sandbox.require_sandbox()

    def validate(self, prompt: Prompt) -> bool:
        """Does it apply? Raises DataError for tests that cannot be run."""
        return bool(read_tests(prompt, self.section.field))

    def check(self, prompt: Prompt, completion: Completion) -> float:
        """A score in [0, 1]; NaN for a prompt without tests."""
        tests = read_tests(prompt, self.section.field)
        if not tests:
            return float("nan")
        code = find_code(completion.text, self.section.extract)
        if code is None:
            return 0.0
        passed = self._run_all(code, tests)
        return float(all(passed)) if self.section.score == "all" else sum(passed) / len(tests)

    def _run_all(self, code: str, tests: Sequence[Any]) -> list[bool]:
        """Programs one after another until one fails (if all must pass); calls and statements in a process for each kind."""
        passed: list[bool] = []
        for test in (t for t in tests if isinstance(t, Mapping) and "call" not in t):
            if self.section.score == "all" and not all(passed):
                return passed
            passed.append(self._passes_program(code, test))
        if self.section.score == "all" and not all(passed):
            return passed
        calls = [t for t in tests if isinstance(t, Mapping) and "call" in t]
        statements = [t for t in tests if isinstance(t, str)]
        return [*passed, *(self._passed_calls(code, calls) if calls else ()),
                *(self._passed_statements(code, statements) if statements else ())]  # fmt: skip

    def _passes_program(self, code: str, test: Mapping[str, Any]) -> bool:
        ran = self._run({"main.py": code}, test.get("stdin", ""), num_tests=1)
        return ran.exit == 0 and same_output(ran.stdout, test["stdout"])

    def _passed_calls(self, code: str, tests: Sequence[Mapping[str, Any]]) -> list[bool]:
        asked = [{key: test[key] for key in ("call", "args", "kwargs") if key in test} for test in tests]
        results = self._drive(code, {"calls": asked}, num_tests=len(tests))
        return [
            same_value(results[i]["value"], test["returns"]) if "value" in results.get(i, {}) else False
            for i, test in enumerate(tests)
        ]

    def _passed_statements(self, code: str, statements: Sequence[str]) -> list[bool]:
        """The token shows that a statement was gone through to its end, and that the process was not merely left."""
        token = secrets.token_hex()
        results = self._drive(code, {"statements": list(statements), "token": token}, num_tests=len(statements))
        return [results.get(i, {}).get("token") == token for i in range(len(statements))]

    def _drive(self, code: str, job: Mapping[str, Any], *, num_tests: int) -> dict[int, dict[str, Any]]:
        ran = self._run({"main.py": _driver(), "solution.py": code}, json.dumps(job), num_tests=num_tests)
        found: dict[int, dict[str, Any]] = {}
        for line in ran.result.splitlines():
            try:
                message = json.loads(line)
                found.setdefault(int(message["case"]), message)
            except (ValueError, TypeError, KeyError, RecursionError):  # the completion can write there too
                continue
        return found

    def _run(self, files: Mapping[str, str], stdin: str, *, num_tests: int) -> Ran:
        s = self.section
        wall_s = min(s.test_timeout_s * num_tests, s.timeout_s / 2)
        limits = Limits(
            wall_s=wall_s, cpu_s=math.ceil(wall_s), memory_bytes=s.max_memory_mb << 20, processes=s.max_processes
        )
        return run_python(files, stdin=stdin, limits=limits, is_boxed=not s.allow_unsandboxed)


@functools.cache
def _driver() -> str:
    return (Path(sandbox.__file__).parent / "driver.py").read_text(encoding="utf-8")


def same_output(found: str, expected: str) -> bool:
    """Equal lines, but for spaces at their ends and empty lines at the end."""
    one, other = ([line.rstrip() for line in text.rstrip().splitlines()] for text in (found, expected))
    return one == other


def same_value(found: Any, expected: Any) -> bool:
    """Does what the driver wrote stand for an expected JSON value? Tuples are lists; True is not 1."""
    if isinstance(expected, Mapping):
        pairs = found.get("dict") if isinstance(found, dict) else None
        if not isinstance(pairs, list) or len(pairs) != len(expected):
            return False
        return all(
            isinstance(p, list) and len(p) == 2 and str(p[0]) in expected and same_value(p[1], expected[str(p[0])])
            for p in pairs
        )
    if isinstance(expected, (list, tuple)):
        items = found.get("set") if isinstance(found, dict) else found
        if not isinstance(items, list) or len(items) != len(expected):
            return False
        wanted = sorted(expected, key=repr) if isinstance(found, dict) else expected
        return all(same_value(a, b) for a, b in zip(items, wanted, strict=True))
    if isinstance(expected, bool) or isinstance(found, bool) or expected is None or isinstance(expected, str):
        return type(found) is type(expected) and found == expected
    if not isinstance(found, (int, float)):
        return False
    if isinstance(found, int) and isinstance(expected, int):
        return found == expected
    return found == expected or math.isclose(found, expected, rel_tol=_RELATIVE_ERROR, abs_tol=_RELATIVE_ERROR)
