"""Votes: the frame of the screen and of the pair, changes, undo, keys that make a repeat harmless, what a guideline forbids."""

import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.store.annotation.schema import Assignment, Event, Flag, Progress, Verdict
from fairlead.web import people, projects, queue, verdicts
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped


def stored(database, assignment):
    with database.read() as rows:
        return rows.get(Verdict, assignment.id)


@pytest.mark.parametrize(("choice", "strength", "shown", "expected"), [
    ("left", 3, "01", ("a", -3)), ("left", 1, "10", ("b", 1)), ("right", 2, "01", ("b", 2)), ("right", 3, "10", ("a", -3)),
    ("tie", 0, "10", ("tie", 0)), ("both_bad", 0, "01", ("both_bad", 0)),
])  # fmt: skip
def test_what_is_stored_is_in_the_frame_of_the_pair(database, project, join, choice, strength, shown, expected):
    actor = join("ann")
    assignment = take(database, actor, project)
    with database.write() as rows:
        rows.get(Assignment, assignment.id).shown = shown
    verdicts.submit(database, actor, assignment.id, vote(choice, strength=strength))
    found = stored(database, assignment)
    assert (found.verdict, found.strength) == expected


def test_the_same_key_is_stored_once(database, project, join):
    actor = join("ann")
    assignment = take(database, actor, project)
    sent = vote("left")
    first = verdicts.submit(database, actor, assignment.id, sent)
    again = verdicts.submit(database, actor, assignment.id, sent)
    assert (first.is_repeat, again.is_repeat) == (False, True) and first.event_number == again.event_number
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == "verdict.submitted")) == 1
    with pytest.raises(Refused, match="used for another"):
        verdicts.submit(database, actor, assignment.id, vote("right", key=sent.key))


def test_two_raters_may_use_one_key(database, project, join):
    for name in ("ann", "bob"):
        actor = join(name)
        assert not verdicts.submit(
            database, actor, take(database, actor, project).id, vote(key="a-key-of-both")
        ).is_repeat


def test_a_verdict_can_be_changed_and_counts_once(database, project, join):
    actor = join("ann")
    assignment = take(database, actor, project)
    for choice in ("left", "right", "skip", "left"):
        verdicts.submit(database, actor, assignment.id, vote(choice))
    with database.read() as rows:
        progress = rows.get(Progress, assignment.item_id)
        assert (progress.num_votes, progress.num_skips) == (1, 0)
    assert stored(database, assignment).verdict == ("b" if is_swapped(assignment.shown) else "a")


def test_undo_opens_the_last_item_again_and_a_repeat_takes_back_nothing_more(database, project, join):
    actor = join("ann")
    done = []
    for _ in range(2):
        done.append(take(database, actor, project))
        verdicts.submit(database, actor, done[-1].id, vote())
    assert verdicts.withdraw_last(database, actor, project.id, key="undo-1-ann") == done[1].id
    assert verdicts.withdraw_last(database, actor, project.id, key="undo-1-ann") == done[1].id
    assert stored(database, done[0]) is not None and stored(database, done[1]) is None
    assert take(database, actor, project).id == done[1].id
    verdicts.withdraw_last(database, actor, project.id, key="undo-2-ann")
    with pytest.raises(Refused, match="nothing to take back"):
        verdicts.withdraw_last(database, actor, project.id, key="undo-3-ann")


def test_another_raters_item_is_not_there(database, project, join):
    ann, bob = join("ann"), join("bob")
    assignment = take(database, ann, project)
    for act in (
        lambda: verdicts.submit(database, bob, assignment.id, vote()),
        lambda: verdicts.flag(database, bob, assignment.id, note="x", key="flag-bob-1"),
        lambda: verdicts.save_draft(database, bob, assignment.id, {"rationale": "x"}),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.status == 404
    with pytest.raises(Refused):
        verdicts.submit(database, ann, "no-such-item", vote())


@pytest.mark.parametrize(("changes", "words"), [
    ({"choice": "left", "strength": 0}, "strength"), ({"choice": "left", "strength": 4}, "strength"),
    ({"choice": "tie", "strength": 1}, "strength"), ({"choice": "skip", "skip_reason": "lazy"}, "reason"), ({"choice": "best"}, "no verdict"),
    ({"rationale": "x" * 10_001}, "too long"), ({"rationale": "a\0b"}, "too long"), ({"rationale": "\ud800"}, "half a character"),
    ({"key": "short"}, "key"), ({"key": "<script>alert(1)</script>"}, "key"), ({"active_ms": -1}, "time"), ({"guideline_version": 7}, "Version 7"),
])  # fmt: skip
def test_what_cannot_be_is_refused_and_changes_nothing(database, project, join, changes, words):
    actor = join("ann")
    assignment = take(database, actor, project)
    with pytest.raises(Refused, match=words):
        verdicts.submit(database, actor, assignment.id, vote(**changes))
    assert stored(database, assignment) is None


@pytest.mark.parametrize(("rules", "choice", "words"), [
    ({}, "tie", "tie is not allowed"), ({}, "both_bad", "both bad"), ({"rationale": "required"}, "left", "asks for a reason"),
])  # fmt: skip
def test_the_guideline_that_was_read_decides(database, project, join, rules, choice, words):
    actor = join("ann")
    version = projects.publish_guideline(database, project.id, text="# New", rules=projects.Rules(**rules), by=None)
    assignment = take(database, actor, project)
    with pytest.raises(Refused, match=words):
        verdicts.submit(database, actor, assignment.id, vote(choice, guideline_version=version))
    if choice == "tie":  # sent from a page that still shows the first version
        verdicts.submit(database, actor, assignment.id, vote("tie", guideline_version=1))
        assert stored(database, assignment).guideline_version == 1


def test_a_flag_is_kept_and_taken_back(database, project, join):
    actor = join("ann")
    assignment = take(database, actor, project)
    verdicts.flag(database, actor, assignment.id, note="two languages", key="flag-1-ann")
    with database.read() as rows:
        assert rows.get(Flag, assignment.id).note == "two languages"
    verdicts.flag(database, actor, assignment.id, note="", key="flag-2-ann")
    with database.read() as rows:
        assert rows.get(Flag, assignment.id) is None


def test_every_item_gets_its_votes_from_different_raters(database, project, join):
    actors = [join(name) for name in ("ann", "bob", "cem")]
    given = {}
    while actors:
        for actor in list(actors):
            found = queue.next_assignment(database, actor, project.id)
            if isinstance(found, queue.Nothing):
                actors.remove(actor)
                continue
            verdicts.submit(database, actor, found.id, vote())
            given.setdefault(found.item_id, []).append(actor.name)
    assert len(given) == 12 and all(len(set(names)) == len(names) == 2 for names in given.values())


def test_sides_are_balanced_within_items_and_raters(database, project, join):
    for name in ("ann", "bob"):
        actor = join(name)
        for _ in range(12):
            verdicts.submit(database, actor, take(database, actor, project).id, vote())
    with database.read() as rows:
        found = rows.execute(sa.select(Assignment.item_id, Assignment.person_id, Assignment.shown)).all()
    for item in {row.item_id for row in found}:
        assert sorted(row.shown for row in found if row.item_id == item) == ["01", "10"]
    for person in {row.person_id for row in found}:
        assert 5 <= sum(row.shown == "10" for row in found if row.person_id == person) <= 7


def test_an_item_in_other_hands_comes_back_when_its_lease_ends(database, project, join, monkeypatch):
    ann, bob, cem = join("ann"), join("bob"), join("cem")
    held = {take(database, actor, project).item_id for actor in (ann, bob)}
    assert len(held) == 2 or take(database, cem, project).item_id not in held
    later = people.now_ms() + queue.LEASE_MS + 1000
    monkeypatch.setattr(queue, "now_ms", lambda: later)
    dan = join("dan")
    seen = set()
    for _ in range(12):
        assignment = take(database, dan, project)
        seen.add(assignment.item_id)
        verdicts.submit(database, dan, assignment.id, vote())
    assert held <= seen


def test_calibration_comes_first_and_to_everybody(database, join):
    from fairlead.web import importing

    made = projects.create_project(database, "calibrated", votes_per_item=1, calibration_items=4)
    added = importing.add_items(database, made.id, pairs(10, prefix="other"))
    assert (added.num_items, added.num_calibration) == (10, 4)
    firsts = []
    for name in ("ann", "bob"):
        actor, own = join(name), []
        for _ in range(4):
            assignment = take(database, actor, made)
            own.append(assignment.item_id)
            verdicts.submit(database, actor, assignment.id, vote())
        firsts.append(own)
    assert firsts[0] == firsts[1] and len(set(firsts[0])) == 4


def test_a_paused_project_gives_nothing(database, project, join):
    projects.set_project_state(database, project.id, state="paused", by=None)
    assert queue.next_assignment(database, join("ann"), project.id) == queue.Nothing(reason="paused")
