"""Weights & Biases, offline unless the recipe says online. The only file that imports wandb."""

from collections.abc import Mapping

import wandb  # pyright: ignore[reportMissingImports] # optional

from fairlead.telemetry.trackers import Place


class WandbSink:
    """One W&B run a stage, resumed under its id. One process at a time; not thread-safe."""

    def __init__(self, place: Place) -> None:
        """Begin or go on with the run of this stage."""
        (place.folder / "wandb").mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off", silent=True, save_code=False, disable_git=True, x_disable_stats=True, x_disable_meta=True
        )
        self._run = wandb.init(project=place.project, name=place.run, id=place.key, resume="allow", mode=place.wandb_mode,
                               dir=str(place.folder), config=dict(place.config), settings=settings)  # fmt: skip

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
