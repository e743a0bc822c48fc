"""Scripts and style sheets are served from memory, by name alone."""

from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra web is not installed")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from fairlead.web.files import StaticFolder


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    (tmp_path / "static" / "inner").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "static" / "inner" / "hidden.js").write_text("hidden")
    (tmp_path / "static" / "app.js").write_text("let a = 'ä'", encoding="utf-8")
    (tmp_path / "static" / "app.css").write_text("p {}")
    app = Starlette()
    app.mount("/static", StaticFolder(tmp_path / "static"))
    return TestClient(app)


def test_a_file_comes_whole_with_its_kind_and_a_tag(client: TestClient) -> None:
    script, sheet = client.get("/static/app.js"), client.get("/static/app.css")
    assert (script.status_code, script.text) == (200, "let a = 'ä'")
    assert script.headers["content-type"].startswith("text/javascript")
    assert sheet.headers["content-type"] == "text/css; charset=utf-8"
    assert script.headers["etag"] != sheet.headers["etag"]


def test_a_copy_that_still_holds_is_not_sent_again(client: TestClient, tmp_path: Path) -> None:
    """The browser asks each time, so that a newer version is there at once."""
    first = client.get("/static/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/static/app.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/app.js", headers={"if-none-match": '"other"'}).status_code == 200
    (tmp_path / "static" / "app.js").write_text("let a = 2")
    newer = Starlette()
    newer.mount("/static", StaticFolder(tmp_path / "static"))
    answer = TestClient(newer).get("/static/app.js", headers={"if-none-match": first.headers["etag"]})
    assert (answer.status_code, answer.text) == (200, "let a = 2")


@pytest.mark.parametrize(
    "path", ["../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "inner/hidden.js", "inner", "", "app.js/", "none.js"]
)  # fmt: skip
def test_nothing_but_the_files_of_the_folder_is_there(client: TestClient, path: str) -> None:
    assert client.get(f"/static/{path}").status_code == 404


def test_files_are_read_and_never_written(client: TestClient) -> None:
    head = client.head("/static/app.js")
    assert (head.status_code, head.content) == (200, b"")
    assert {client.request(method, "/static/app.js").status_code for method in ("POST", "PUT", "DELETE")} == {405}
