"""axe-core in the browser that a test drives. The driver puts it in, so that the pages' content policy stays as it is."""

import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
COLOUR_RULES = "cat.color"
_RUN = """
const answer = arguments[arguments.length - 1], [tags, category] = arguments;
const some = axe.getRules(tags).filter((rule) => rule.tags.includes(category)).map((rule) => rule.ruleId);
const runOnly = category ? {type: 'rule', values: some} : {type: 'tag', values: tags};
axe.run(document, {runOnly, resultTypes: ['violations']})
  .then((found) => answer({violations: found.violations, passes: found.passes.length}),
        (error) => answer({error: String(error)}));
"""
_CONTRAST = """
const number = (colour) => { const p = colour.match(/[\\d.]+/g).map(Number); return p.length < 4 ? [...p, 1] : p; };
const light = (c) => { const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
const ground = (e) => { if (!e) return [255, 255, 255, 1]; const own = number(getComputedStyle(e).backgroundColor); return own[3] === 1 ? own : over(own, ground(e.parentElement)); };
const found = [];
for (const e of document.querySelectorAll('body *')) {
  if (!e.getClientRects().length || e.closest('.hush, :disabled') || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
  const style = getComputedStyle(e), below = ground(e), [a, b] = [light(over(number(style.color), below)), light(below)].sort((x, y) => y - x);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < (large ? 3 : 4.5)) found.push(`contrast ${ratio.toFixed(2)}: ${e.outerHTML.slice(0, 90)}`);
  for (let p = e; p; p = p.parentElement) if (getComputedStyle(p).opacity !== '1') { found.push(`half transparent: ${e.outerHTML.slice(0, 90)}`); break; }
}
return found;
"""  # noqa: E501


@functools.cache
def _source() -> str:
    found = importlib.util.find_spec(
        "axe_playwright_python"
    )  # found, not imported: its code needs playwright, axe does not
    if found is None or not found.submodule_search_locations:
        message = "axe-core is missing (make dev installs axe-playwright-python, which carries it)"
        if "browser" in os.environ.get("FAIRLEAD_REQUIRE", ""):
            pytest.fail(message)
        pytest.skip(message)
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


def look(driver: Any, *, only: str = "") -> list[str]:
    """Return what is wrong with the page that is shown, a line each: rule, target, what to do. Empty when nothing is.

    Contrast is measured beside axe, which leaves out text that is partly scrolled away.

    Args:
        only: a category of rules; all of them when empty.
    """
    if not driver.execute_script("return typeof axe === 'object'"):
        driver.execute_script(_source())
    found = driver.execute_async_script(_RUN, TAGS, only)
    assert "error" not in found, found
    assert found["passes"] > (0 if only else 10), "axe has looked at nothing"
    lines = [
        f"{rule['id']}: {' '.join(str(part) for part in node['target'])}: {' '.join(node.get('failureSummary', '').split())}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    return lines + driver.execute_script(_CONTRAST)
