"""The check of file and function lengths counts rightly and fails beyond its limits."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools")
    return importlib.import_module("check_sizes")


def write_function(folder: Path, lines: int) -> None:
    """A file with one function of this many lines, decorator not counted."""
    (folder / "a.py").write_text("@staticmethod\ndef f():\n" + "    x = 1\n" * (lines - 1))


def test_lengths_are_counted(sizes: ModuleType, tmp_path: Path):
    (tmp_path / "inner").mkdir()
    write_function(tmp_path / "inner", 5)
    files, functions = sizes.measure(tmp_path)
    assert [(p.name, p.lines) for p in files] == [("inner/a.py", 6)]
    assert [(p.name, p.lines) for p in functions] == [("inner/a.py:2 f", 5)]


@pytest.mark.parametrize(("lines", "code"), [(80, 0), (81, 1)])
def test_the_limit_of_a_function(
    sizes: ModuleType, tmp_path: Path, lines: int, code: int, capsys: pytest.CaptureFixture[str]
):
    write_function(tmp_path, lines)
    assert sizes.main(tmp_path) == code
    assert ("a.py:2 f: 81 lines; expected <= 80" in capsys.readouterr().err) == bool(code)


@pytest.mark.parametrize(("lines", "code"), [(500, 0), (501, 1)])
def test_the_limit_of_a_file(sizes: ModuleType, tmp_path: Path, lines: int, code: int):
    (tmp_path / "a.py").write_text("def f():\n    return 1\n" + "x = 1\n" * (lines - 2))
    assert sizes.main(tmp_path) == code


def test_the_statistics_of_one_to_ten(sizes: ModuleType):
    """Median 5.5; the 90th percentile is the nearest rank, index round(8.1) = 8 of 0..9, so 9."""
    pieces = [sizes.Piece(name=str(n), lines=n) for n in range(1, 11)]
    assert sizes.describe("files", pieces, limit=500) == "10 files: median 5.5 lines, p90 9, longest 10 (10), limit 500"


def test_the_package_is_within_the_limits(sizes: ModuleType):
    assert sizes.main() == 0
