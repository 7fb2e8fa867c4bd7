"""The doctor reports what is present, missing or wrong, and never shows the value of a key."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from e5jax.distributed import doctor
from e5jax.distributed.doctor import Finding, main


def levels(capsys) -> dict[str, str]:
    """Of each line."""
    lines = [line.split(":")[0].split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {what: level for level, what in lines}


def test_a_sound_machine_passes(tmp_path, capsys):
    assert main(tmp_path / "runs") == 0
    found = levels(capsys)
    assert list(found) == [
        *(
            "versions",
            "memory",
            "disk of the run",
            "disk of the hub cache",
            "network",
            "keys",
            "devices",
            "sharded step",
        )
    ]
    assert {found[name] for name in ("versions", "devices", "sharded step")} == {"ok"}
    assert found["network"] == "note"  # HF_HUB_OFFLINE is set


def test_devices_that_compute_wrongly_are_bad(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "sharded_step", lambda: 0.1)
    assert main(tmp_path) == 1
    assert levels(capsys)["sharded step"] == "bad"


def test_the_sharded_step_is_exact_on_all_devices():
    assert doctor.sharded_step() == 0


def test_keys_are_named_and_not_shown():
    (found,) = doctor.keys(None, {"HF_TOKEN": "hf_canary", "OPENAI_API_KEY": ""})  # type: ignore[arg-type]
    assert found == Finding("ok", "keys", "set: HF_TOKEN; public models and data need none")


def test_small_disks_and_memories_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "DISK", 2**80)
    monkeypatch.setattr(doctor, "MEMORY", 2**80)
    assert [found.level for found in doctor.disks(tmp_path)] == ["note", "note"]
    assert [found.level for found in doctor.memory(tmp_path)] == ["bad"]


class Hub(BaseHTTPRequestHandler):
    """Answers."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_hub_that_answers_and_one_that_does_not(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", hub)
    (found,) = doctor.network(tmp_path)
    assert found.level == "ok"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    (found,) = doctor.network(tmp_path)
    assert (found.level, "does not answer" in found.text) == ("note", True)
