"""The application over HTTP, as a browser without scripts uses it."""

import re

from starlette.testclient import TestClient

from fairlead.web.place import Place

PLACE = Place.of(host="127.0.0.1", port=8643, url=None)
ORIGIN = {"origin": PLACE.url}
_DRAWN = re.compile(r"(?<![\w-])(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{16,}")


def without_ids(page: str) -> str:
    """A page without ids, tokens and nonces: they are drawn at random, so that any short word may stand in one."""
    return _DRAWN.sub("", page)


class Browser:
    """A client that sends what a form of the last page would send."""

    def __init__(self, app) -> None:
        self.client = TestClient(app, base_url=PLACE.url, follow_redirects=False)
        self.page = ""

    def get(self, path, **headers):
        answer = self.client.get(path, headers=headers)
        if "text/html" in answer.headers.get("content-type", ""):
            self.page = answer.text
        return answer

    @property
    def csrf(self):
        return re.search(r'name="csrf" content="([^"]+)"', self.page)[1]

    def post(self, path, *, headers=ORIGIN, **fields):
        return self.client.post(path, data={"csrf": self.csrf, **fields}, headers=headers)

    def log_in(self, name):
        self.get("/login")
        answer = self.post("/login", name=name, password="a long password")
        assert answer.status_code == 303, answer.text
        self.get("/")
        return self

    def rate(self, project, choice="left2", **fields):
        self.get(f"/p/{project.id}/rate")
        assignment = re.search(r'data-assignment="([^"]+)"', self.page)[1]
        key = re.search(r'name="key" value="([^"]+)"', self.page)[1]
        return assignment, self.post(
            f"/a/{assignment}/verdict", key=key, choice=choice, guideline_version="1", **fields
        )
