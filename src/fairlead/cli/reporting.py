"""`fairlead report`: draw a run's page again from its record and artifacts."""

import contextlib
import os
from pathlib import Path

from fairlead.core.config import parse_config
from fairlead.core.errors import StoreError, explain
from fairlead.core.io import read_json, write_text


def redraw(home: Path, name: str | None, out: Path | None) -> Path:
    """Write the report of a run; returns its path."""
    from fairlead.cli import terminal
    from fairlead.cli.run_report import newest_run, run_report
    from fairlead.pipeline.recipe import Recipe
    from fairlead.pipeline.run import Interface, Pipeline
    from fairlead.report import build_report

    folder = run_folder(home, name or newest_run(home))
    recipe = parse_config(Recipe, read_json(folder / "recipe.json"), where=str(folder / "recipe.json"))
    pipeline = Pipeline(recipe, home, Path(os.curdir).resolve(), Interface(terminal.progress, terminal.say))
    pipeline.load_records()
    path = out or folder / "report.html"
    write_text(path, build_report(run_report(pipeline)))
    return path


def run_folder(home: Path, run: str) -> Path:
    """Folder of a run.

    Raises:
        StoreError: unknown; lists the runs.
    """
    folder = home / run
    if not (folder / "run.json").is_file():
        runs = ", ".join(sorted(p.parent.name for p in home.glob("*/run.json"))) or "none yet"
        raise StoreError(
            explain(
                "run", run, "is not known", expected=f"one of: {runs}", remedy="Start one with: fairlead run RECIPE"
            )
        )
    return folder


def serve(home: Path, port: int) -> None:
    """Serve the live report on this machine until ctrl-C.

    Raises:
        StoreError: the port is taken.
    """
    from fairlead.cli import terminal
    from fairlead.report.follow import make_server

    try:
        server = make_server(home, port=port)
    except OSError as error:
        raise StoreError(explain("--port", port, f"cannot be used ({error.strerror})", expected="a free port",
                                 remedy="Name another, or 0 for any")) from error  # fmt: skip
    terminal.say(
        f"Live report: http://127.0.0.1:{server.server_address[1]} (ctrl-C ends it; the training is not touched)"
    )
    with contextlib.suppress(KeyboardInterrupt), server:
        server.serve_forever()
