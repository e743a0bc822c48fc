"""Lineage rails: parents above children, and no line runs through another node."""

import re

import report_example as example
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.report.lineage import RAIL, ROW, draw_lineage
from fairlead.report.run import LineageNode


def node(name: str, *parents: str) -> LineageNode:
    return LineageNode(id=name, kind="policies", title=f"title {name}", parents=parents, note="")


@st.composite
def graphs(draw: st.DrawFn) -> list[LineageNode]:
    nodes = [
        node(str(i), *map(str, sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))))) if i else node("0")
        for i in range(draw(st.integers(1, 10)))
    ]
    return draw(st.permutations(nodes))


@settings(deadline=None, max_examples=25)
@given(nodes=graphs())
def test_parents_come_first_and_no_line_crosses_a_node(nodes: list[LineageNode]):
    drawing = draw_lineage(nodes)
    row = {r.id: i for i, r in enumerate(drawing.rows)}
    assert sorted(row) == sorted(n.id for n in nodes)
    assert all(row[parent] < row[n.id] for n in nodes for parent in n.parents)
    places = {(r.x, r.y): r.id for r in drawing.rows}
    for edge in drawing.edges:
        x1, y1, turn = map(float, re.match(r"M([\d.]+) ([\d.]+)V([\d.]+)", edge.path).groups())
        assert [name for (x, y), name in places.items() if x == x1 and y1 < y <= turn] == []
    assert len(drawing.edges) == sum(len(n.parents) for n in nodes)
    assert drawing.height == len(nodes) * ROW and all(0 < r.x < drawing.width for r in drawing.rows)


def test_a_chain_stays_on_one_rail():
    drawing = draw_lineage([node("a"), node("b", "a"), node("c", "b")])
    assert [r.x for r in drawing.rows] == [RAIL / 2] * 3 and drawing.width == RAIL


def test_the_example_needs_four_rails():
    assert draw_lineage(example.LINEAGE).width <= 4 * RAIL


def test_an_artifact_of_another_run_is_named():
    drawing = draw_lineage([node("b", "0123456789abcdef")])
    assert drawing.rows[0].origin == "from 0123456789ab (another run)" and drawing.edges == ()


def test_damaged_lineage_is_still_drawn():
    """A node that is its own parent, a cycle, the same id twice."""
    drawing = draw_lineage([node("a", "a"), node("b", "c"), node("c", "b"), node("b", "c")])
    assert sorted(r.id for r in drawing.rows) == ["a", "b", "c"]


def test_the_table_holds_whole_ids():
    table = draw_lineage(example.LINEAGE).table
    assert [row[0].text for row in table.rows] == [n.id for n in example.LINEAGE]


def test_a_short_id_tells_artifacts_of_one_kind_apart():
    nodes = [
        LineageNode(id=f"completions-{digits}", kind="completions", title="x", parents=(), note="")
        for digits in ("3f2a" * 4, "3f2b" * 4)
    ]
    assert [row.short_id for row in draw_lineage(nodes).rows] == ["completions-3f2a3f", "completions-3f2b3f"]


def test_colours_follow_the_kinds_of_artifacts():
    kinds = {"policy": "policy", "release": "policy", "completions": "policy", "reward_model": "reward", "gold": "reward", "feedback": "people",
             "preferences": "people", "evaluation": "judge", "prompts": "neutral", "criteria": "neutral"}  # fmt: skip
    rows = draw_lineage([LineageNode(id=f"{k}-0", kind=k, title=k, parents=(), note="") for k in kinds]).rows
    assert {row.kind: row.role for row in rows} == kinds
