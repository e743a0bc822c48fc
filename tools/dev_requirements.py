"""Print the requirements of a dependency group of pyproject.toml (dev when none is named), one shell word each (older pip has no `--group`)."""

import sys
import tomllib
from pathlib import Path

if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    group = sys.argv[1] if len(sys.argv) > 1 else "dev"
    print(
        " ".join(name.split(">")[0] for name in project["dependency-groups"][group])
    )  # constraints.txt holds the versions
