"""The calibration test drawn: what it does to raters of each true agreement."""

from collections.abc import Mapping, Sequence

import numpy as np

from fairlead.core.summary import Chart, Series, Threshold
from fairlead.stats.sequential import Sprt, operating_curve, read_sequence
from fairlead.web.calibration import Standing
from fairlead.web.dashboard.gauges import Gauge, Measure, draw

_SHARES = np.round(np.arange(0.40, 0.951, 0.01), 2)


def curve_charts(test: Sprt) -> tuple[Chart, Chart]:
    """Chance to pass, fail and stay undecided, and mean number of items, by true agreement; exact."""
    curve = operating_curve(test, _SHARES)

    def line(label: str, role: str, values: np.ndarray) -> Series:
        return Series(label=label, role=role, points=tuple(zip(_SHARES.tolist(), values.tolist(), strict=True)))  # pyright: ignore[reportArgumentType]

    chances = Chart(
        question=f"Whom does the test pass? ({round(100 * test.p0)} % against {round(100 * test.p1)} %)", x_label="true agreement with the others",
        y_label="chance", y_zero=True,
        series=(line("passes", "people", curve.passes), line("fails", "reward", curve.fails),
                line("undecided", "reference", curve.undecided)),
        thresholds=(Threshold(label="alpha", value=test.alpha, kind="reference"), Threshold(label="power", value=1 - test.beta, kind="reference")),
    )  # fmt: skip
    lengths = Chart(
        question="After how many pairs does it decide?", x_label="true agreement with the others", y_label="pairs on average", y_zero=True,
        series=(line("pairs", "neutral", curve.mean_items),),
        thresholds=(Threshold(label="at most", value=float(test.cap), kind="stop"),),
    )  # fmt: skip
    return chances, lengths


MAX_PATHS = 6
"""Raters in one chart; more lines cannot be told apart."""


def evidence_chart(test: Sprt, answers: Mapping[str, Sequence[bool]]) -> Chart | None:
    """How the evidence of each rater ran, those furthest from a decision first: the test ends at a bound."""
    if not answers:
        return None
    paths = {name: read_sequence(test, given).path.tolist() for name, given in answers.items() if given}
    shown = sorted(paths, key=lambda name: abs(paths[name][-1]))[:MAX_PATHS]
    low, high = test.bounds
    series = tuple(
        Series(
            label=name,
            role="people",
            points=((0.0, 0.0), *((float(i), value) for i, value in enumerate(paths[name], start=1))),
        )
        for name in shown
    )
    more = "" if len(shown) == len(paths) else f" ({len(shown)} of {len(paths)} raters, the least decided)"
    return Chart(
        question=f"How near is each rater to a decision?{more}", x_label="calibration pairs with a majority of others", y_label="evidence, nats",
        series=series,
        thresholds=(Threshold(label="passes above", value=high, kind="target"), Threshold(label="fails below", value=low, kind="stop")),
    )  # fmt: skip


def standing_gauge(standing: Standing, test: Sprt) -> Gauge:
    """A rater's agreement with its interval; the healthy range begins where the test wants raters to be."""
    measure = Measure(
        label="Agrees with the others", unit=" %", scale=100, low=0.0, high=1.0, healthy_low=test.p1, healthy_high=1.0
    )
    return draw(measure, standing.share)
