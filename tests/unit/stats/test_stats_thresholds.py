import pytest

from fairlead.core.errors import DataError
from fairlead.stats.intervals import Interval, undefined
from fairlead.stats.thresholds import (
    REFERENCE_ROWS,
    agreement_from_kappa,
    chance_agreement,
    conflict_table,
    explain_conflict,
    kappa_at,
    light,
)


def test_the_table_is_the_published_one():
    """kappa = 2 p - 1 without ties; 42.5 / 42.5 / 15 has chance .384, so .65 is (.65 - .384) / .616 = .43."""
    rows = conflict_table()
    assert [row.kappa for row in rows] == pytest.approx(
        [0.20, 0.26, 0.30, 0.314, 0.40, 0.452, 0.50, 0.546, 0.60, 0.70], abs=1e-9
    )
    assert [row.kappa_with_ties for row in rows] == pytest.approx(
        [0.35, 0.40, 0.43, 0.44, 0.51, 0.56, 0.59, 0.63, 0.68, 0.76], abs=0.006
    )
    assert chance_agreement((0.425, 0.425, 0.15)) == pytest.approx(0.384, abs=5e-4)


def test_the_scales_are_inverse():
    assert agreement_from_kappa(0.6) == pytest.approx(0.80)
    assert agreement_from_kappa(kappa_at(0.71, tie_share=0.2), tie_share=0.2) == pytest.approx(0.71)


def test_lights():
    assert light(Interval(0.3, 0.2, 0.5, 100)) == "red"
    assert light(Interval(0.5, 0.4, 0.6, 100), Interval(0.6, 0.55, 0.64, 100)) == "red"
    assert light(Interval(0.5, 0.4, 0.6, 100), Interval(0.7, 0.65, 0.75, 100)) == "amber"
    assert light(Interval(0.7, 0.6, 0.8, 100)) == "green"
    assert light(undefined("unanimous", n=4)) == "grey"


def test_the_conflict_is_said_in_words():
    text = explain_conflict(Interval(0.68, 0.6, 0.75, 50), Interval(0.36, 0.2, 0.5, 50))
    assert "68 % agreement passes the gate of 65 %; kappa 0.36 is noise" in text
    assert "the gate of 65 % is kappa 0.30, kappa 0.4 is 70 % and kappa 0.6 is 80 % agreement" in text
    assert "undefined: unanimous" in explain_conflict(Interval(1, 1, 1, 5), undefined("undefined: unanimous", n=5))


def test_shares_that_are_none_are_refused():
    with pytest.raises(DataError, match="not shares of labels"):
        chance_agreement((0.5, 0.4))


def test_every_published_row_of_the_study_is_there():
    values = {(row.data, row.value) for row in REFERENCE_ROWS}
    for data, value in (("InstructGPT, training labelers", 0.726), ("InstructGPT, held-out labelers", 0.773), ("TL;DR summaries", 0.77),
                        ("Anthropic HH", 0.63), ("MT-bench", 0.81),
                        ("UltraFeedback", 0.597), ("HelpSteer2", 0.706), ("HelpSteer3", 0.89)):  # fmt: skip
        assert (data, value) in values
