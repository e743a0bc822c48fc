"""The pool: checks that hang, crash, eat memory or raise cost their own completion; the rest, the order and the next round are as ever."""

import math
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from verifier_example import prompt, reply, section

from fairlead.core.errors import ConfigError, EngineError
from fairlead.rewards.pool import PooledScorer, ScoreCache, WorkerPool
from fairlead.rewards.verifiers import make_verifier
from fairlead.rewards.worker_process import worker_environment

SHORT_S = 1.5
"""For checks that hang; all others get what a busy machine may need."""


def faulty(
    pool: WorkerPool, *, cache: ScoreCache | None = None, timeout_s: float = 30.0, **options: object
) -> PooledScorer:
    custom = section("custom", build="verifier_faults:build", options=options, timeout_s=timeout_s)
    return make_verifier(custom, pool=pool, cache=cache, name="faulty")


def scores(scorer: PooledScorer, *texts: str) -> list[float]:
    return scorer.score([prompt()] * len(texts), [reply(text) for text in texts]).tolist()


def alive(pid: int) -> bool:
    """Is there such a process (a zombie is none)?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(max_memory_bytes=2 << 30) as started:
        yield started


def test_scores_come_back_in_order_whatever_finishes_first(pool: WorkerPool):
    texts = ["sleep 0.3", *(f"n {'x' * i}" for i in range(20)), "sleep 0.1"]
    assert scores(faulty(pool), *texts) == [len(text) / 1000 for text in texts]


def test_a_fault_costs_its_own_completion_only(pool: WorkerPool):
    """Each kind of failure is told, the checks around it are made, and the pool goes on."""
    scorer = faulty(pool, timeout_s=SHORT_S)
    texts = [
        "good",
        "sleep 60",
        "raise no",
        "segfault",
        "exit 3",
        "memory 8000000000",
        "recurse",
        "regex",
        "nan",
        "better",
    ]
    start = time.monotonic()
    outcomes = scorer.outcomes([prompt()] * len(texts), [reply(text) for text in texts])
    assert time.monotonic() - start < 60
    assert [o.failure for o in outcomes] == [
        "",
        "timeout",
        "error",
        "crashed",
        "crashed",
        "error",
        "error",
        "timeout",
        "",
        "",
    ]
    assert all(math.isnan(o.score) for o in outcomes[1:-1])
    assert (
        outcomes[2].detail == "ValueError: no" and "1.5 s" in outcomes[1].detail and "MemoryError" in outcomes[5].detail
    )
    assert scorer.counts == {"checked": 3, "timeout": 2, "error": 3, "crashed": 2, "not_applicable": 1}
    assert scores(scorer, "good", "again") == [0.004, 0.005]


def test_what_a_check_prints_is_no_reply(pool: WorkerPool):
    assert scores(faulty(pool), "print", "next") == [0.005, 0.004]


def test_a_worker_that_dies_is_replaced_and_the_check_tried_again(pool: WorkerPool, tmp_path: Path):
    scorer = faulty(pool, mark=str(tmp_path / "mark"))
    assert scores(scorer, "die-once") == [0.008]
    assert (tmp_path / "mark").read_text().splitlines() == 2 * ["die-once"]


def test_attempts_are_bounded(tmp_path: Path):
    mark = tmp_path / "mark"
    with WorkerPool(num_workers=1, retries=2) as pool:
        assert math.isnan(scores(faulty(pool, mark=str(mark)), "exit 1")[0])
    assert mark.read_text().count("exit") == 3


def test_equal_checks_are_made_once_and_kept_across_runs(pool: WorkerPool, tmp_path: Path):
    mark, place = tmp_path / "mark", tmp_path / "cache" / "scores.jsonl"
    scorer = faulty(pool, mark=str(mark), cache=ScoreCache(place))
    assert scores(scorer, "aa", "b", "aa", "nan") == pytest.approx([0.002, 0.001, 0.002, math.nan], nan_ok=True)
    assert scorer.counts == {"checked": 3, "cached": 1, "not_applicable": 1}
    again = faulty(pool, mark=str(mark), cache=ScoreCache(place))
    assert scores(again, "nan", "b", "aa") == pytest.approx([math.nan, 0.001, 0.002], nan_ok=True)
    assert again.counts == {"cached": 3, "not_applicable": 1}
    assert sorted(mark.read_text().split()) == ["aa", "b", "nan"]


def test_a_result_is_kept_for_what_it_depends_on(pool: WorkerPool, tmp_path: Path):
    """Another text, finish, prompt, meta or setting is another check; another model, id or time limit is the same."""
    mark = tmp_path / "mark"
    cache = ScoreCache()
    scorer = faulty(pool, mark=str(mark), cache=cache)
    for one, said in (
        (prompt(), reply("a")),
        (prompt(), reply("a", finish_reason="length")),
        (prompt("other"), reply("a")),
        (prompt(answer=1), reply("a")),
    ):
        scorer.score([one], [said])
    assert scorer.counts["checked"] == 4
    scorer.score([prompt()], [reply("a", sample_index=7, seed=3, token_ids=(1, 2))])
    slower = faulty(pool, mark=str(mark), cache=cache, timeout_s=9)
    slower.score([prompt()], [reply("a")])
    assert (scorer.counts["checked"], slower.counts["checked"]) == (4, 0)
    other = faulty(pool, mark=str(mark), more=1, cache=cache)
    other.score([prompt()], [reply("a")])
    assert other.counts["checked"] == 1


def test_failures_are_not_kept(pool: WorkerPool, tmp_path: Path):
    scorer = faulty(pool, mark=str(tmp_path / "mark"))
    for _ in range(2):
        assert math.isnan(scores(scorer, "raise x")[0])
    assert scorer.counts == {"error": 2}


def test_results_do_not_depend_on_the_cache_size(pool: WorkerPool):
    scorer = faulty(pool, cache=ScoreCache(max_entries=1))
    assert scores(scorer, "a", "bb", "a") == [0.001, 0.002, 0.001]
    assert scores(scorer, "a", "bb", "a") == [0.001, 0.002, 0.001]


def test_a_message_longer_than_a_pipe_holds(pool: WorkerPool):
    assert scores(faulty(pool, timeout_s=30), "x" * 3_000_000) == [3000.0]


def test_workers_see_no_secrets(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert "WANDB_API_KEY" not in worker_environment()
    with WorkerPool(num_workers=1) as fresh:
        assert scores(faulty(fresh), "environment WANDB_API_KEY", "environment PATH") == [0.0, 1.0]


def test_a_verifier_that_cannot_be_built_is_refused_at_once(pool: WorkerPool):
    with pytest.raises(ConfigError, match=r"build=no_such_module:build cannot be imported"):
        make_verifier(section("custom", build="no_such_module:build"), pool=pool)


def test_workers_that_do_not_start_are_an_error_with_their_last_words(monkeypatch: pytest.MonkeyPatch):
    with WorkerPool(num_workers=1) as pool:
        scorer = faulty(pool)
        monkeypatch.setattr(sys, "executable", "/bin/false")
        with pytest.raises(EngineError, match="exit status 1 did not start 3 times in a row"):
            scores(scorer, "a")
        monkeypatch.undo()
        assert scores(scorer, "a") == [0.001]


def test_closing_kills_the_workers_and_the_pool_can_be_used_again():
    pool = WorkerPool(num_workers=1)
    with pool:
        scores(faulty(pool), "a")
        pids = [worker.process.pid for worker in pool._workers]
        assert [alive(pid) for pid in pids] == [True]
    assert [alive(pid) for pid in pids] == [False]
    assert scores(faulty(pool), "a") == [0.001]
    pids = [worker.process.pid for worker in pool._workers]
    del pool
    assert [alive(pid) for pid in pids] == [False]


def test_an_interrupted_round_leaves_no_worker_in_the_middle_of_a_check(monkeypatch: pytest.MonkeyPatch):
    with WorkerPool(num_workers=1) as pool:
        scorer = faulty(pool, timeout_s=30)
        scores(scorer, "a")

        def interrupt(_timeout: float | None = None) -> list[object]:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pool._selector, "select", interrupt)
            scores(scorer, "sleep 20")
        assert not pool._workers
        assert scores(scorer, "bb") == [0.002]


def test_a_worker_whose_parent_was_killed_ends():
    """While it waits (its input ends) and while it checks (its alarm)."""
    code = textwrap.dedent("""
        import os, signal, sys, threading
        sys.path.insert(0, sys.argv[1])
        from test_rewards_pool import WorkerPool, faulty, scores
        pool = WorkerPool(num_workers=2, retries=0)
        scores(faulty(pool, timeout_s=30.0), "sleep 0.5", "sleep 0.6")
        print(*(w.process.pid for w in pool._workers), flush=True)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
        scores(faulty(pool, timeout_s=1.0), "sleep 600")
    """)
    run = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=120,
    )
    pids = [int(word) for word in run.stdout.split()]
    assert (len(pids), run.returncode) == (2, -9), run.stderr
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [alive(pid) for pid in pids] == [False, False]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("json:loads", "build=json:loads fails with TypeError"),
        ("builtins:dict", "build=builtins:dict returns an object without version, validate, check; expected one with"),
    ],
)
def test_a_function_that_builds_no_verifier_is_a_mistake_of_the_recipe(pool: WorkerPool, build: str, message: str):
    with pytest.raises(ConfigError, match=message):
        make_verifier(section("custom", build=build), pool=pool)
