"""Kept results: what is put comes back, on disk too; damaged lines are passed over; the oldest go first."""

import math

from hypothesis import given
from hypothesis import strategies as st

from fairlead.rewards.score_cache import ScoreCache

SCORES = st.dictionaries(
    st.text(alphabet="0123456789abcdef", min_size=1, max_size=4), st.floats(allow_infinity=False), max_size=8
)


def same(a: float | None, b: float) -> bool:
    return a is not None and (a == b or (math.isnan(a) and math.isnan(b)))


@given(st.lists(SCORES, max_size=4))
def test_what_is_put_comes_back_after_a_restart(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("cache") / "deep" / "scores.jsonl"
    cache, expected = ScoreCache(path), {}
    for batch in batches:
        cache.put(batch)
        expected |= batch
    for found in (cache, ScoreCache(path)):
        assert len(found) == len(expected)
        assert all(same(found.get(key), score) for key, score in expected.items())
        assert found.get("absent") is None


def test_a_line_that_was_left_half_written_is_passed_over(tmp_path):
    path = tmp_path / "scores.jsonl"
    ScoreCache(path).put({"a": 1.0, "b": math.nan})
    with path.open("a") as file:
        file.write('["c", 0.')
    cache = ScoreCache(path)
    assert (cache.get("a"), cache.get("c"), len(cache)) == (1.0, None, 2)
    cache.put({"d": 0.5})
    assert ScoreCache(path).get("d") == 0.5


def test_lines_of_another_shape_are_passed_over(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b'["a", 1]\n{"a": 2}\n[1, 2]\n["b", "x"]\n\xff\n["c", true, 3]\n17\n')
    cache = ScoreCache(path)
    assert (len(cache), cache.get("a")) == (1, 1.0)


def test_the_oldest_go_first_and_a_grown_file_is_written_anew(tmp_path):
    path = tmp_path / "scores.jsonl"
    for i in range(7):
        ScoreCache(path, max_entries=3).put({str(i): float(i)})
    cache = ScoreCache(path, max_entries=3)
    assert [cache.get(str(i)) for i in range(7)] == [None, None, None, None, 4.0, 5.0, 6.0]
    assert len(path.read_text().splitlines()) == 3


def test_without_a_place_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = ScoreCache()
    cache.put({"a": 1.0})
    assert cache.get("a") == 1.0
    assert not list(tmp_path.iterdir())
