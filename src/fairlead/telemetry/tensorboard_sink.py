"""TensorBoard: event files below RUN/tensorboard. The only file that imports tensorboard."""

import time
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue] # generated
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue] # generated
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from fairlead.telemetry.trackers import Place


class TensorBoardSink:
    """Appends scalars. A resumed run starts a new file that takes the place of later steps of the old one. Not thread-safe."""

    def __init__(self, place: Place) -> None:
        """Open a new event file."""
        self._writer = EventFileWriter(str(place.folder / "tensorboard" / place.run))
        self._is_first = True

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One event with all scalars of a step."""
        if self._is_first:  # readers then drop what a killed run had logged from here on
            self._is_first = False
            self._writer.add_event(
                Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
            )
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """Flush and release."""
        self._writer.close()
