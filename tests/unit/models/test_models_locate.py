"""Where a model is: the nearest folder for a mistyped path, and a hub that is asked once. The hub is a server of this process."""

import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

import tiny_models
from fairlead.core.errors import ModelError
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.models.locate import locate_model, resolve_model

ANSWERS = {"there": (200, ""), "gated": (403, "GatedRepo"), "none": (404, "RepoNotFound"), "adapter": (404, "EntryNotFound"),
           "refused": (404, ""), "busy": (503, ""), "limited": (429, "")}  # fmt: skip


def refusal(call, *args, **options):
    with pytest.raises(ModelError) as info:
        call(*args, **options)
    message = str(info.value)
    assert "\n" not in message and "expected" in message
    return message


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's client."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def at(monkeypatch, port, *, is_offline=False):
    """Move the hub to a port of this machine."""
    template = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", is_offline)


@pytest.fixture
def hub(cache, monkeypatch):
    """A hub that answers by the name of the model; returns what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            status, code = ANSWERS[self.path.split("/")[2]]
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at(monkeypatch, server.server_port)
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(cache, monkeypatch):
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at(monkeypatch, free.getsockname()[1])
        yield


def download(cache, name="org/tiny"):
    """Put the tiny model where the hub's client keeps it."""
    place = cache / f"models--{name.replace('/', '--')}"
    folder = place / "snapshots" / "0123456789abcdef"
    shutil.copytree(tiny_models.folder("llama"), folder)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(folder.name)
    return folder


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("models/reviews-3n", "models/reviews-3m"),
        ("./models/reviews", "models/reviews-3m"),
        ("modelz/reviews-3m/", "models/reviews-3m"),
        ("../project/models/revews-3m", "../project/models/reviews-3m"),
    ],
)
def test_a_mistyped_path_is_told_its_neighbour(no_hub, tmp_path, monkeypatch, name, nearest):
    for folder in ("models/reviews-3m", "models/zebra"):
        (tmp_path / "project" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    assert f"(did you mean {nearest}?)" in refusal(locate_model, name)


def test_a_path_beside_the_recipe_is_told_its_neighbour(hub, tmp_path):
    (tmp_path / "project" / "models" / "mine").mkdir(parents=True)
    message = refusal(resolve_model, "models/mime", folders=[tmp_path / "project"])
    assert "is not a folder (did you mean models/mine?)" in message
    assert "no config.json" in refusal(resolve_model, "models/mine", folders=[tmp_path / "project"])
    assert hub == []


def test_a_file_is_not_a_folder(cache):
    Path("model.safetensors").touch()
    assert "model.safetensors is a file" in refusal(resolve_model, "model.safetensors")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "neither a folder nor on the hub"),
        ("gated", "Ask for access"),
        ("adapter", "has no config.json on the hub"),
        ("refused", "is refused by the hub (404)"),
    ],
)
def test_the_hub_is_asked_once(hub, name, words):
    assert words in refusal(load_tokenizer, f"org/{name}")
    assert hub == [f"/org/{name}/resolve/main/config.json"]


@pytest.mark.parametrize("name", ["there", "busy", "limited"])
def test_what_the_hub_may_have_is_left_to_the_loader(hub, name):
    assert resolve_model(f"org/{name}") == f"org/{name}" == locate_model(f"org/{name}")
    assert len(hub) == 1


@pytest.mark.parametrize("load", [load_policy, load_tokenizer])
def test_without_a_network_there_is_one_line_and_no_retry(no_hub, caplog, load):
    message = refusal(load, "org/name")
    assert "the hub cannot be reached (" in message and "name a local folder" in message
    assert "Retrying" not in caplog.text


def test_offline_variables_are_named(cache, monkeypatch):
    at(monkeypatch, 9, is_offline=True)
    assert "the hub cannot be reached (HF_HUB_OFFLINE is set)" in refusal(locate_model, "org/name")


def test_a_downloaded_model_needs_no_hub(hub, cache):
    folder = download(cache)
    assert locate_model("org/tiny") == str(folder)
    assert load_policy("org/tiny").hidden_size == 32 and len(load_tokenizer("org/tiny")) == tiny_models.VOCABULARY
    Path("org").mkdir()  # a folder of that name does not hide it
    assert resolve_model("org/tiny") == "org/tiny"
    assert hub == []


def test_half_a_download_is_completed_by_the_hub_or_named(no_hub, cache, monkeypatch):
    weights = download(cache) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert f"{weights} is damaged" in refusal(load_policy, "org/tiny")
    download(cache, "org/there")
    (cache / "models--org--there" / "snapshots" / "0123456789abcdef" / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(load_tokenizer, "org/there")


def test_an_index_names_no_files_elsewhere(cache, tmp_path):
    folder = shutil.copytree(tiny_models.folder("llama"), tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": 3}}))
    assert "model.safetensors.index.json is damaged" in refusal(resolve_model, str(folder))
