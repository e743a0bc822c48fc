import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from statsmodels.api import GLM, families

from fairlead.core.errors import DataError
from fairlead.stats.ranking import bradley_terry, elo


def win_table(rng, scores, num_games):
    size = len(scores)
    wins = np.zeros((size, size))
    for i in range(size):
        for j in range(i):
            won = rng.binomial(num_games, 1 / (1 + math.exp(scores[j] - scores[i])))
            wins[i, j], wins[j, i] = won, num_games - won
    return wins


def design(wins):
    """Rows of +-1, outcome 1, weight: one row for each ordered pair."""
    size = len(wins)
    rows = [(np.eye(size)[i] - np.eye(size)[j], wins[i, j]) for i in range(size) for j in range(size) if i != j]
    return np.array([row for row, _ in rows]), np.array([weight for _, weight in rows])


def test_two_competitors_differ_by_the_log_odds_of_the_win_rate():
    """3 wins of 4: log(3/1) = 1.0986; variance of the difference 1/3 + 1/1, each score a quarter of it from the mean."""
    scores, errors = bradley_terry([[0, 3], [1, 0]])
    assert scores[0] - scores[1] == pytest.approx(math.log(3))
    assert errors == pytest.approx(np.full(2, math.sqrt((1 / 3 + 1) / 4)))


@given(st.integers(0, 2**32 - 1), st.integers(3, 6))
def test_scores_equal_logistic_regression_without_intercept(seed, size):
    rng = np.random.default_rng(seed)
    wins = win_table(rng, rng.normal(0, 0.7, size), 30) + 0.5
    rows, weights = design(wins)
    model = LogisticRegression(fit_intercept=False, C=1 / 0.3, tol=1e-10, max_iter=2000)
    model.fit(np.vstack([rows, -rows]), np.repeat([1, 0], len(rows)), sample_weight=np.tile(weights / 2, 2))
    assert bradley_terry(wins, ridge=0.3).scores == pytest.approx(model.coef_[0], abs=1e-4)


def test_standard_errors_equal_those_of_a_generalised_linear_model():
    """With scores relative to the mean of all, the error of a contrast c is sqrt(c' V c); statsmodels drops one competitor."""
    wins = win_table(np.random.default_rng(4), np.array([0.5, 0.0, -0.8]), 40)
    rows = np.array([[1, -1, 0], [1, 0, -1], [0, 1, -1.0]])
    games = np.array([[wins[0, 1], wins[1, 0]], [wins[0, 2], wins[2, 0]], [wins[1, 2], wins[2, 1]]])
    fit = GLM(games, rows[:, 1:], family=families.Binomial()).fit(tol=1e-14)
    full = np.zeros((3, 3))
    full[1:, 1:] = fit.cov_params()
    centre = np.eye(3) - 1 / 3
    scores, errors = bradley_terry(wins)
    assert errors == pytest.approx(np.sqrt(np.diag(centre @ full @ centre)), rel=1e-6)
    assert scores == pytest.approx(centre @ np.array([0, *fit.params]), abs=1e-6)


def test_intervals_cover_the_true_difference():
    """Scores .5 apart, 120 games a pair: of 200 studies the 95% interval of the first score covers in 186 to 198."""
    rng, truth, covered = np.random.default_rng(5), np.array([0.5, 0.0, -0.5]), 0
    for _ in range(200):
        scores, errors = bradley_terry(win_table(rng, truth, 120))
        covered += abs(scores[0] - truth[0]) < 1.96 * errors[0]
    assert 184 <= covered <= 198


def test_a_group_that_never_wins_has_no_finite_score_without_ridge():
    with pytest.raises(DataError, match="Use ridge > 0"):
        bradley_terry([[0, 3, 2], [0, 0, 1], [0, 1, 0]])
    scores, errors = bradley_terry([[0, 3, 2], [0, 0, 1], [0, 1, 0]], ridge=0.1)
    assert np.isfinite(scores).all() and np.isfinite(errors).all()
    assert scores[0] > 1


def test_extreme_records_do_not_overflow():
    scores, _ = bradley_terry([[0, 10**6], [0, 0]], ridge=1e-3)
    assert 10 < scores[0] - scores[1] < 40


def test_elo_is_400_points_for_ten_to_one():
    assert elo([1.0])[0] == pytest.approx(173.718, abs=1e-3)
    assert elo([math.log(10)])[0] == pytest.approx(400)


def test_baseball_scores_are_those_of_the_textbook():
    """Agresti, Categorical Data Analysis, table 10.10: American League 1987, Baltimore at 0."""
    wins = [[0, 7, 9, 7, 7, 9, 11], [6, 0, 7, 5, 11, 9, 9], [4, 6, 0, 7, 7, 8, 12], [6, 8, 6, 0, 6, 7, 10], [6, 2, 6, 7, 0, 7, 12],
            [4, 4, 5, 6, 6, 0, 6], [2, 4, 1, 3, 1, 7, 0]]  # fmt: skip
    scores, _ = bradley_terry(wins)
    assert (scores - scores[6]).round(2).tolist() == [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0]


@pytest.mark.parametrize("wins", [[[0, -1], [2, 0]], [[0, math.nan], [2, 0]], [[0, 1, 2], [2, 0, 1]], []])
def test_what_is_no_square_table_of_counts_is_refused(wins):
    with pytest.raises(DataError, match="make no ranking"):
        bradley_terry(wins, ridge=0.1)
