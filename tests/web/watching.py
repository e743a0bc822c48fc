"""What a page did that it should not have: ran something, asked another host for something, has something in it that could."""

import json
from typing import Any

_PROVOKE = """
const page = document.querySelector('main') || document.body;
for (const e of page.querySelectorAll('*'))
  for (const kind of ['mouseover', 'mouseenter', 'mousemove', 'focus', 'focusin', 'toggle', 'begin', 'load', 'error', 'start', 'animationstart'])
    e.dispatchEvent(new Event(kind, {bubbles: false}));
for (const a of page.querySelectorAll("a[href^='java' i]")) a.click();
for (const e of page.querySelectorAll('x')) e.click();
"""
_ACTIVE = """
const is = (e, selector) => Element.prototype.matches.call(e, selector);  // a form may have a field of this name
return [...document.querySelectorAll('main *, dialog *')]
  .filter((e) => is(e, 'img, image, iframe, object, embed, style, script, link, meta, base, video, audio, source')
    || is(e, 'form[action^="java" i], [src], [srcdoc]')
    || (e.namespaceURI.endsWith('svg') && !/^(svg|g|path|rect|circle|line|polyline|polygon|text|tspan|title|desc)$/.test(e.localName))
    || [...e.attributes].some((a) => /^on/i.test(a.name) || (/href$/i.test(a.name) && !/^[/#]/.test(a.value))))
  .map((e) => e.outerHTML.slice(0, 120));
"""


def ran(driver: Any) -> bool:
    """Has a payload run? Everything that a person could do to the page is done first."""
    driver.execute_script(_PROVOKE)
    return bool(driver.execute_script("return window.pwned !== undefined || document.title === 'pwned'"))


def active(driver: Any) -> list[str]:
    """Elements in the content of the page that could run or load something."""
    return driver.execute_script(_ACTIVE)


def requests(driver: Any) -> list[dict[str, Any]]:
    """What the browser has asked for since the last call, from its own log: also what the content policy then stopped."""
    events = (json.loads(row["message"])["message"] for row in driver.get_log("performance"))
    return [event["params"]["request"] for event in events if event["method"] == "Network.requestWillBeSent"]


def strangers(driver: Any, url: str) -> list[str]:
    """Addresses of other hosts among them."""
    own = (url + "/", "data:,", "about:", "chrome:", "chrome-extension:")
    return [request["url"] for request in requests(driver) if not request["url"].startswith(own)]
