"""Other people's dashboards beside the JSONL file, which stays the truth. Off unless a recipe names them; each package is imported only then.

    telemetry: {sinks: [tensorboard]}

TensorBoard and MLflow write local files, and W&B writes its offline format, unless the recipe says where to send them. Nothing else
leaves the machine. A tracker that fails ends no run: it is told once, and left out from then on.

Example:
    sink = open_tracker("tensorboard", Place(folder=Path("runs/demo"), run="demo/sft"))
"""

import contextlib
import hashlib
import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from fairlead.core.errors import ConfigError, explain
from fairlead.core.protocols import MetricSink

TrackerName = Literal["tensorboard", "wandb", "mlflow"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a stage's metrics go, and under what name."""

    folder: Path
    """Of the run; each tracker makes its own folder below it."""
    run: str
    """`recipe/stage`; a resumed stage goes on under the same name."""
    project: str = "fairlead"
    mlflow_uri: str = ""
    """Tracking server; empty writes files."""
    wandb_mode: Literal["offline", "online"] = "offline"
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings of the run, shown beside its curves."""

    @property
    def key(self) -> str:
        """A name without slashes, the same when the stage is resumed."""
        return f"{self.run.replace('/', '-')}-{hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]}"


def check_installed(names: Sequence[TrackerName]) -> None:
    """Import the packages, before anything is computed: one may be there and a part of it not.

    Raises:
        ConfigError: one is not installed, or lacks a package of its own.
    """
    for name in names:
        with _imports(name):
            importlib.import_module(f"fairlead.telemetry.{name}_sink")


def open_tracker(name: TrackerName, place: Place) -> MetricSink:
    """A sink that hands rows to one tracker.

    Raises:
        ConfigError: its package is not installed, or lacks a package of its own.
    """
    with _imports(name):
        if name == "tensorboard":
            from fairlead.telemetry.tensorboard_sink import TensorBoardSink

            return TensorBoardSink(place)
        if name == "wandb":
            from fairlead.telemetry.wandb_sink import WandbSink

            return WandbSink(place)
        from fairlead.telemetry.mlflow_sink import MlflowSink

        return MlflowSink(place)


@contextlib.contextmanager
def _imports(name: TrackerName) -> Iterator[None]:
    """Name what is missing: the tracker, or a package that the tracker itself imports."""
    try:
        yield
    except ModuleNotFoundError as error:
        is_absent = importlib.util.find_spec(name) is None
        wrong = "needs a package that is not there" if is_absent else f"needs {error.name}, which is not installed"
        raise ConfigError(explain("telemetry.sinks", name, wrong, expected=f"an installed {name}" if is_absent else f"a complete {name}",
                                  remedy=f'Run pip install "fairlead[{name}]", or remove it from the list')) from error  # fmt: skip


class Trackers:
    """Several trackers as one sink that never fails: what goes wrong is said once, and that tracker left out."""

    def __init__(self, sinks: Mapping[str, MetricSink], say: Callable[[str], None]) -> None:
        """Take the sinks by name; this object closes them."""
        self._sinks, self._say = dict(sinks), say

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand the finite numbers of a row on."""
        row = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        for name, sink in list(self._sinks.items()):
            self._try(name, lambda sink=sink: sink.log(step, row))

    def close(self) -> None:
        """Close all."""
        for name, sink in list(self._sinks.items()):
            self._try(name, sink.close)

    def _try(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # a dashboard that is down must not cost a run; the JSONL file has every row
            del self._sinks[name]
            self._say(
                f"{name} failed and is left out from here on: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            )


def open_trackers(names: Sequence[TrackerName], place: Place, say: Callable[[str], None]) -> Trackers:
    """All of a recipe's trackers.

    Raises:
        ConfigError: the package of one is not installed.
    """
    return Trackers({name: open_tracker(name, place) for name in names}, say)
