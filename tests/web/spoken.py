"""The accessibility tree that the browser hands to a screen reader, in the order in which it is read."""

from dataclasses import dataclass
from typing import Any

CONTROLS = frozenset(
    "button link radio checkbox textbox combobox spinbutton searchbox slider switch tab menuitem DisclosureTriangle dialog region radiogroup".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What is said of one node."""

    role: str
    name: str
    level: int = 0
    """Of a heading."""
    live: str = ""
    """How urgently a change is read out: polite, assertive, or empty."""
    is_focused: bool = False


def read(driver: Any) -> list[Node]:
    """Every node that is not ignored, in reading order."""
    driver.execute_cdp_cmd("Accessibility.enable", {})
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    by_id = {node["nodeId"]: node for node in nodes}
    found: list[Node] = []

    def walk(node: dict[str, Any]) -> None:
        if not node.get("ignored"):
            facts = {fact["name"]: fact["value"].get("value") for fact in node.get("properties", [])}
            found.append(Node(
                role=str(node["role"]["value"]), name=" ".join(str(node.get("name", {}).get("value", "")).split()),
                level=int(facts.get("level") or 0), live=str(facts.get("live") or ""), is_focused=bool(facts.get("focused")),
            ))  # fmt: skip
        for child in node.get("childIds", []):
            if child in by_id:
                walk(by_id[child])

    walk(next(node for node in nodes if "parentId" not in node))
    return found


def nameless(nodes: list[Node]) -> list[str]:
    """Roles of controls and landmarks that say nothing of themselves."""
    return [node.role for node in nodes if node.role in CONTROLS and not node.name]


def misplaced_headings(nodes: list[Node]) -> list[str]:
    """Headings that leave out a level, and what is wrong with the first; empty when they nest under one heading of level 1."""
    found = [node for node in nodes if node.role == "heading"]
    wrong = [f"{sum(node.level == 1 for node in found)} headings of level 1"] if sum(node.level == 1 for node in found) != 1 else []  # fmt: skip
    above = 0
    for node in found:
        if node.level > above + 1:
            wrong.append(f"level {node.level} after {above}: {node.name[:60]}")
        above = node.level
    return wrong
