"""Metric files: what is logged is read, a kill loses nothing that was logged, resume forgets what comes after."""

import contextlib
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.core.protocols import MetricSink
from fairlead.telemetry import FanOut, JsonlSink, read_metrics

STEPS = st.lists(
    st.tuples(st.integers(0, 10**6), st.dictionaries(st.sampled_from(["loss", "dpo/margin", "rl/kl_k1"]), st.floats()))
)


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@settings(deadline=None, max_examples=25)
@given(rows=STEPS)
def test_what_was_logged_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, dict[str, float]]]):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    with contextlib.closing(JsonlSink(path)) as sink:
        for step, metrics in rows:
            sink.log(step, metrics)
    expected: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in rows:
        for name, value in metrics.items():
            expected.setdefault(name, []).append((step, value))
    found = read_metrics(path)
    assert found.keys() == expected.keys()
    for name, curve in expected.items():
        assert [s for s, _ in found[name]] == [s for s, _ in curve]
        assert all(_same(a, b) for (_, a), (_, b) in zip(found[name], curve, strict=True))


def test_every_line_is_strict_json(tmp_path: Path):
    sink = JsonlSink(tmp_path / "m.jsonl")
    sink.log(1, {"loss": math.nan, "grad_norm": -math.inf})
    sink.close()

    def refuse(name: str):
        raise AssertionError(name)

    row = json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 1, "loss": "NaN", "grad_norm": "-Infinity"}


def test_rows_survive_a_kill(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    program = (
        "import os, signal, sys\nfrom fairlead.telemetry import JsonlSink\nsink = JsonlSink(sys.argv[1])\n"
        "for step in range(7): sink.log(step, {'loss': 1.0})\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_metrics(path)["loss"] == [(step, 1.0) for step in range(7)]


def test_a_torn_row_is_left_out_and_then_dropped(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo', encoding="utf-8")
    assert read_metrics(path) == {"loss": [(1, 2.0)]}
    sink = JsonlSink(path)
    sink.log(2, {"loss": 1.5})
    sink.close()
    assert read_metrics(path) == {"loss": [(1, 2.0), (2, 1.5)]}


def test_resume_drops_what_comes_after_the_checkpoint(tmp_path: Path):
    path = tmp_path / "m.jsonl"
    with contextlib.closing(JsonlSink(path)) as sink:
        for step in range(10):
            sink.log(step, {"loss": float(step)})
    with contextlib.closing(JsonlSink(path)) as sink:
        assert sink.resume(6) == 3
        sink.log(7, {"loss": 70.0})
    assert read_metrics(path)["loss"] == [*((s, float(s)) for s in range(7)), (7, 70.0)]
    assert [found.name for found in tmp_path.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]\n", "is not a row of metrics"),
        ('{"loss": 1.0}\n', "is not a row of metrics"),
        ('{"step": 1.5, "loss": 1.0}\n', "is not a row of metrics"),
        ('{"step": 1, "loss": "high"}\n', "not a number"),
        ('{"step": 1, "loss": [1]}\n', "not a number"),
        ('{"step": 1, "loss": true}\n', "not a number"),
        ('{"step": 1, "loss": NaN}\n', "is not JSON"),
    ],
)
def test_damage_names_the_line(tmp_path: Path, line: str, message: str):
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 0, "loss": 1.0}\n' + line, encoding="utf-8")
    with pytest.raises(DataError, match=rf"m\.jsonl:2.*{message}"):
        read_metrics(path)


def test_a_missing_file_is_a_data_error(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        read_metrics(tmp_path / "metrics.jsonl")


class _Kept:
    """A sink that keeps what it is given."""

    def __init__(self, *, fails: bool = False) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.fails, self.is_closed = fails, False

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.rows.append((step, dict(metrics)))

    def close(self) -> None:
        self.is_closed = True
        if self.fails:
            raise OSError("full")


def test_fan_out_gives_all_the_same_and_closes_all(tmp_path: Path):
    bad, good = _Kept(fails=True), _Kept()
    sink: MetricSink = FanOut(bad, good, JsonlSink(tmp_path / "m.jsonl"))
    sink.log(3, {"loss": 0.5})
    with pytest.raises(OSError, match="full"):
        sink.close()
    assert bad.rows == good.rows == [(3, {"loss": 0.5})] and good.is_closed
    assert read_metrics(tmp_path / "m.jsonl") == {"loss": [(3, 0.5)]}
