"""Hold the documentation against the code. Prints one line a fault and exits with 1 when there is any.

python tools/check_docs.py            # check
python tools/check_docs.py --write    # write the generated parts, then check
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from doc_blocks import with_blocks
from pydantic import TypeAdapter, ValidationError

from fairlead.algos import ALGORITHMS
from fairlead.core.config import parse_config, parse_yaml
from fairlead.core.errors import FairleadError, nearest
from fairlead.pipeline.gates import all_gates
from fairlead.pipeline.recipe import Recipe, load
from fairlead.telemetry.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
STAGE_PAGES = {
    "prompts": ("prompts",), "gold": ("rewards",), "sft": ("sft",), "completions": ("completions",), "feedback": ("feedback",),
    "preferences": ("preferences",), "rewards": ("rewards",), "process": ("rewards",),
    "policies": ("dpo", "kto", "online"), "evals": ("evals",), "releases": ("releases",),
    "model": ("pipeline",),
}  # fmt: skip
"""Pages under docs/stages by recipe section; a section that is not listed here is an error."""
GENERAL_SECTIONS = frozenset({"name", "scope", "seed", "device", "text", "telemetry", "allow"})
FORBIDDEN = (
    (re.compile(r"(?<![\w.\])}])/(?:work|root|home|Users)/\w"), "a path of one machine", "Write it relative to the repository"),
    (re.compile(r"(?:pypi|pythonhosted|anaconda|npmjs|crates)\.(?:org|io|com)|download\.pytorch\.org"), "the host of a package registry",
     "Let people's own pip settings decide"),
)  # fmt: skip
TEXT_FOLDERS = ("src", "docs", "tests", "tools", "recipes", "benchmarks", ".ci")
TEXT_SUFFIXES = frozenset({".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".j2", ".html", ".css", ".js", ".csv", ""})
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_YAML = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_GATE_TABLE = re.compile(r"^\| gate \|.*\n\|[-|]+\n((?:\|.*\n?)+)", re.MULTILINE)
_FIRST_CELL = re.compile(r"^\| `([^`]+)`", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def pages(root: Path) -> list[Path]:
    """Every page of documentation, the root's included."""
    return sorted([*root.glob("*.md"), *(root / "docs").rglob("*.md")])


def generated_parts(root: Path, *, write: bool) -> Iterator[str]:
    """Parts that are not what the code says; with `write` they are written instead."""
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        current = with_blocks(text)
        if current == text:
            continue
        if write:
            page.write_text(current, encoding="utf-8")
        else:
            yield f"{page.relative_to(root)}: differs from the code. Run python tools/check_docs.py --write."


def broken_links(root: Path) -> Iterator[str]:
    """Relative links to files or headings that are not there."""
    for page in pages(root):
        for match in _LINK.finditer(_CODE.sub("", page.read_text(encoding="utf-8"))):
            target, _, anchor = (match[1] or match[2]).partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            place = (page.parent / unquote(target)).resolve() if target else page
            if not place.exists():
                yield f"{page.relative_to(root)}: links to {target}, which is not there. Fix the link."
            elif anchor and place.suffix == ".md" and anchor not in anchors(place.read_text(encoding="utf-8")):
                yield f"{page.relative_to(root)}: links to #{anchor}, a heading that {place.name} does not have. Fix the link."


def anchors(text: str) -> set[str]:
    """The fragments that a renderer makes of the headings."""
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(_CODE.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in plain}


def missing_pages(root: Path, *, algorithms: Iterable[str], sections: Iterable[str]) -> Iterator[str]:
    """Algorithms and stages without a page, and pages that the map does not name."""
    algorithm_pages = "\n".join(p.read_text(encoding="utf-8") for p in sorted((root / "docs/algorithms").glob("*.md")))
    for name in algorithms:
        if f"`{name}`" not in algorithm_pages:
            yield f"docs/algorithms: no page names `{name}`. Write one."
    for section in sections:
        if section not in STAGE_PAGES and section not in GENERAL_SECTIONS:
            yield f"docs/stages: recipe section {section} is new. Write its page and name it in tools/check_docs.py."
        for page in STAGE_PAGES.get(section, ()):
            if not (root / f"docs/stages/{page}.md").is_file():
                yield f"docs/stages/{page}.md: is missing for recipe section {section}. Write it."
    overview = root / "docs/README.md"
    text = overview.read_text(encoding="utf-8") if overview.is_file() else ""
    for page in sorted((root / "docs").rglob("*.md")):
        name = page.relative_to(root / "docs").as_posix()
        if page != overview and not re.search(rf"\]\({re.escape(name)}[)#]", text):
            yield f"docs/README.md: does not link to {name}. Add it to the map."


def unexplained_gates(root: Path, *, gates: Iterable[str]) -> Iterator[str]:
    """Gates that no stage's table names, and names in these tables that are no gates."""
    known = set(gates)
    found: set[str] = set()
    for page in sorted((root / "docs/stages").glob("*.md")):
        for table in _GATE_TABLE.findall(page.read_text(encoding="utf-8")):
            for name in _FIRST_CELL.findall(table):
                found.add(name)
                if name not in known:
                    yield f"{page.relative_to(root)}: {name} is not a gate{nearest(name, known)}. Rename or remove it."
    for name in sorted(known - found):
        yield f"docs/stages: no table of gates names {name}. Add it to the page of its stage."


def unexplained_metrics(root: Path) -> Iterator[str]:
    """Metrics that docs/metrics.md does not name."""
    text = (root / "docs/metrics.md").read_text(encoding="utf-8")
    for metric in METRICS:
        if f"`{metric.name}`" not in text:
            yield f"docs/metrics.md: does not name {metric.name}. Write the page again with telemetry.metrics.metrics_page()."


def forbidden_words(root: Path) -> Iterator[str]:
    """Paths of one machine and hosts of package registries."""
    files = [p for p in root.iterdir() if p.is_file() and p.name != ".git"]  # a file in a git worktree
    files += [p for name in TEXT_FOLDERS for p in sorted((root / name).rglob("*")) if p.is_file()]
    for file in files:
        if file.suffix not in TEXT_SUFFIXES or {"__pycache__", ".work"} & set(file.parts):
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            for pattern, what, remedy in FORBIDDEN:
                if found := pattern.search(line):
                    yield f"{file.relative_to(root)}:{number}: {found[0]} is {what}. {remedy}."


def broken_recipes(root: Path) -> Iterator[str]:
    """Recipes that do not load, and examples on pages that no recipe would accept."""
    for file in sorted([*(root / "recipes").rglob("*.yaml"), *(root / "src/fairlead/bundled").rglob("*.yaml")]):
        try:
            load(file)
        except FairleadError as error:
            yield f"{file.relative_to(root)}: does not load. {error}"
    for page in pages(root):
        for match in _YAML.finditer(page.read_text(encoding="utf-8")):
            try:
                check_example(match[1])
            except (FairleadError, ValidationError) as error:
                yield f"{page.relative_to(root)}: an example is not a recipe. {' '.join(str(error).split())}"


def check_example(text: str) -> None:
    """A whole recipe when it has a name, else single sections."""
    data = parse_yaml(text, where="example")
    if "name" in data:
        parse_config(Recipe, data)
        return
    for section, value in data.items():
        info = Recipe.model_fields.get(section)
        if info is not None:
            TypeAdapter(info.rebuild_annotation()).validate_python(value)
        else:
            parse_config(Recipe, {"name": "example", section: value})  # names the nearest known section


def all_faults(root: Path, *, write: bool) -> list[str]:
    """Everything that is wrong, one line each."""
    return [
        *generated_parts(root, write=write),
        *broken_links(root),
        *missing_pages(root, algorithms=[a.name for a in ALGORITHMS], sections=Recipe.model_fields),
        *unexplained_gates(root, gates=[gate.name for gate in all_gates()]),
        *unexplained_metrics(root),
        *forbidden_words(root),
        *broken_recipes(root),
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Hold the documentation against the code.")
    parser.add_argument("--write", action="store_true", help="write the generated parts first")
    faults = all_faults(ROOT, write=parser.parse_args().write)
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(pages(ROOT))} pages checked, {len(faults)} faults.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
