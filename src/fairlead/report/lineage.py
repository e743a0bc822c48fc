"""Lineage as rails: one row an artifact, parents above their children, lines at the left that join them.

A node holds its rail until all of its children are placed, so that a line never crosses another node. Rows are ordinary text, which
keeps the graph readable on a phone, in print and for screen readers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fairlead.core.summary import Table
from fairlead.report.run import LineageNode
from fairlead.report.tables import TableView, view_table

ROW, RAIL = 52, 20
_ROLES = {"policy": "policy", "completions": "policy", "release": "policy", "reward_model": "reward", "gold": "reward", "feedback": "people",
          "preferences": "people", "evaluation": "judge"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageRow:
    """One artifact."""

    id: str
    short_id: str
    kind: str
    role: str
    """Chooses the colour of the dot."""
    title: str
    origin: str
    """`from ...` in words; empty for a source."""
    note: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A line from a parent to a child."""

    path: str
    role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageDrawing:
    """The whole graph."""

    rows: tuple[LineageRow, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float
    row_height: int
    table: TableView


def draw_lineage(nodes: Sequence[LineageNode]) -> LineageDrawing:
    """Place nodes on rows and rails."""
    ordered = _parents_first(nodes)
    titles = {node.id: node.title for node in ordered}
    rails = _rails(ordered)
    places = {node.id: (rails[node.id] * RAIL + RAIL / 2, i * ROW + ROW / 2) for i, node in enumerate(ordered)}
    rows = tuple(
        LineageRow(id=node.id, short_id=_short(node.id), kind=node.kind, role=_ROLES.get(node.kind, "neutral"), title=node.title,
                   origin=_origin(node, titles), note=node.note, x=places[node.id][0], y=places[node.id][1])
        for node in ordered
    )  # fmt: skip
    kinds = {row.id: row.role for row in rows}
    edges = tuple(
        Edge(path=_curve(places[parent], places[node.id]), role=kinds[parent])
        for node in ordered
        for parent in node.parents
        if parent in places and parent != node.id
    )
    table = Table(title="Lineage", columns=("artifact", "kind", "title", "made from", "note"),
                  rows=tuple((n.id, n.kind, n.title, ", ".join(n.parents), n.note) for n in ordered))  # fmt: skip
    width = (max(rails.values(), default=0) + 1) * RAIL
    return LineageDrawing(
        rows=rows, edges=edges, width=width, height=len(rows) * ROW, row_height=ROW, table=view_table(table)
    )


def _parents_first(nodes: Sequence[LineageNode]) -> list[LineageNode]:
    """Order nodes so that parents come first, as given otherwise; nodes of a cycle keep their order at the end."""
    left = list({node.id: node for node in nodes}.values())
    known = {node.id for node in left}
    ordered: list[LineageNode] = []
    placed: set[str] = set()
    while left:
        node = next((n for n in left if all(p in placed or p not in known for p in n.parents)), left[0])
        left.remove(node)
        ordered.append(node)
        placed.add(node.id)
    return ordered


def _rails(ordered: Sequence[LineageNode]) -> dict[str, int]:
    waiting = {node.id: sum(node.id in child.parents for child in ordered) for node in ordered}
    holders: list[str | None] = []
    rails: dict[str, int] = {}
    for node in ordered:
        for parent in set(node.parents) & waiting.keys():
            waiting[parent] -= 1
        for i, holder in enumerate(holders):
            if holder is not None and waiting[holder] <= 0:
                holders[i] = None
        freed = [rails[p] for p in node.parents if p in rails and holders[rails[p]] is None]
        rail = freed[0] if freed else next((i for i, h in enumerate(holders) if h is None), len(holders))
        if rail == len(holders):
            holders.append(None)
        rails[node.id] = rail
        holders[rail] = node.id if waiting[node.id] > 0 else None
    return rails


def _curve(parent: tuple[float, float], child: tuple[float, float]) -> str:
    """Down the parent's rail, then over to the child's within the last row."""
    (x1, y1), (x2, y2) = parent, child
    turn = y2 - ROW * 0.8 if y2 > y1 else y1
    return f"M{x1:g} {y1:g}V{turn:g}C{x1:g} {y2 - ROW * 0.3:g} {x2:g} {y2 - ROW * 0.5:g} {x2:g} {y2:g}"


def _origin(node: LineageNode, titles: dict[str, str]) -> str:
    if not node.parents:
        return ""
    return "from " + ", ".join(titles.get(parent, f"{parent[:12]} (another run)") for parent in node.parents)


def _short(id: str) -> str:
    """Beginning of an id that still tells artifacts apart, and that commands take: the kind and six digits of the hash."""
    kind, _, digits = id.rpartition("-")
    return f"{kind}-{digits[:6]}" if kind else id[:12]
