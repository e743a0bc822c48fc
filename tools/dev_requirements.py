"""Print the developers' requirements of pyproject.toml, one shell word each (older pip has no `--group`)."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
print(
    " ".join(name.split(">")[0] for name in project["dependency-groups"]["dev"])
)  # constraints.txt holds the versions
