"""Every script in tools/ and benchmarks/ imports: a function that was renamed in the package is noticed there too."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted(
    path for folder in ("tools", "benchmarks") for path in (ROOT / folder).rglob("*.py") if ".work" not in path.parts
)  # in .work stand the environments of peers
OTHER_ENVIRONMENTS = {"datasets", "selenium", "trl", "vllm"}
"""Packages that a script needs and an install for tests may lack."""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.syspath_prepend(path.parent)
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        if error.name not in OTHER_ENVIRONMENTS:
            raise
        pytest.skip(f"needs {error.name}")


def test_scripts_were_found():
    assert {"bundled_model.py", "check_docs.py", "run.py"} <= {path.name for path in SCRIPTS}
