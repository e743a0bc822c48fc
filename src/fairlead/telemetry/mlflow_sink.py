"""MLflow: files below RUN/mlflow, or the tracking server that the recipe names. The only file that imports mlflow."""

import os
import time
from collections.abc import Mapping

from mlflow.entities import Metric  # pyright: ignore[reportMissingImports] # optional
from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports] # optional

from fairlead.telemetry.trackers import Place

_MAX_PARAM_CHARS = 500  # of MLflow's stores


class MlflowSink:
    """One MLflow run a stage, found again by its tag. One process at a time; not thread-safe."""

    def __init__(self, place: Place) -> None:
        """Begin or go on with the run of this stage."""
        if (
            not place.mlflow_uri
        ):  # MLflow 3 asks for this word before it writes plain files, which need no server and no database
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = MlflowClient(tracking_uri=place.mlflow_uri or (place.folder / "mlflow").resolve().as_uri())
        found = self._client.get_experiment_by_name(place.project)
        experiment = found.experiment_id if found else self._client.create_experiment(place.project)
        runs = self._client.search_runs([experiment], filter_string=f"tags.fairlead_key = '{place.key}'", max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            return
        self._run = self._client.create_run(
            experiment, tags={"fairlead_key": place.key}, run_name=place.run
        ).info.run_id
        for name, value in place.config.items():
            self._client.log_param(self._run, name, str(value)[:_MAX_PARAM_CHARS])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One batch of metrics."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)
