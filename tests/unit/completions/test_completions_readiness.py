"""Faults of replies, and the gate over them."""

import pytest

from fairlead.completions.readiness import find_fault, readiness
from fairlead.core.records import Completion


def _reply(text: str, *, finished: bool = True) -> Completion:
    return Completion(prompt_id="p", text=text, model="m", finish_reason="stop" if finished else "length")


LOOP = "no no no no " * 4


@pytest.mark.parametrize(
    ("text", "finished", "must_finish", "fault"),
    [
        ("A good film.", True, True, ""),
        ("A good film.", False, True, "cut off at the limit"),
        ("A good film.", False, False, ""),
        ("", True, True, "empty"),
        (" \n ", True, True, "empty"),
        (LOOP, True, True, "repeats itself"),
        ("a b c d " * 3, True, True, ""),
        ("a b c d " * 4, True, True, "repeats itself"),
        ("no", True, True, ""),
    ],
)
def test_first_fault_of_a_reply(text: str, finished: bool, must_finish: bool, fault: str) -> None:
    assert find_fault(_reply(text, finished=finished), must_finish=must_finish) == fault


def test_share_and_table_count_every_reply_once() -> None:
    replies = [_reply("Good."), _reply(""), _reply("cut", finished=False), _reply(LOOP), _reply("Fine.")]
    verdict, table = readiness(replies, is_heldout=True)
    assert (verdict.value, verdict.n) == (0.4, 5)
    assert {row[0]: row[1] for row in table.rows} == {"cut off at the limit": 1, "empty": 1, "repeats itself": 1}


@pytest.mark.parametrize(("num_good", "outcome"), [(95, "PASS"), (70, "WARN"), (20, "STOP")])
def test_gate(num_good: int, outcome: str) -> None:
    verdict, _ = readiness([_reply("Good.")] * num_good + [_reply("")] * (100 - num_good), is_heldout=True)
    assert verdict.outcome == outcome


def test_continuations_need_not_finish() -> None:
    replies = [_reply("and so on", finished=False)] * 20
    assert readiness(replies, is_heldout=True)[0].outcome == "STOP"
    assert readiness(replies, is_heldout=True, must_finish=False)[0].outcome == "PASS"


def test_training_prompts_are_named_as_such() -> None:
    assert "training prompts" in readiness([_reply("Good.")], is_heldout=False)[0].note
