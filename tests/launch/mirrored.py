"""A run's directory in a bucket, with an emulator of Google's storage in this process: `python -m tests.launch.mirrored FOLDER`.

One JSON object: what was there after each step. `test_mirror` says what it has to be.
"""

import json
import logging
import sys
from pathlib import Path

from launch.launcher import mirror
from tests.storage.emulators import google

BUCKET = "gs://bucket/runs/one"
KEPT = {
    "config.json": "{}",
    "metrics.jsonl": "1\n",
    "export/model.safetensors": "x" * 300_000,
    "launch/host-0.json": "{}",
}
LEFT = {
    "checkpoints/5/a": "x",
    "launch/host-0.lock": "",
    "launch/process-0.phase": "step 5",
    ".export.tmp/half": "x",
}


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def walk(root: Path) -> dict[str, object]:
    first, second = root / "first", root / "second"
    seen: dict[str, object] = {}
    for name, data in {**KEPT, **LEFT}.items():
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        (first / name).write_text(data)
    mirror.pull(second, BUCKET)
    seen["nothing yet"] = contents(second) if second.exists() else {}
    mirror.push(first, BUCKET)
    mirror.pull(second, BUCKET)
    seen["another machine"] = contents(second)
    (first / "metrics.jsonl").write_text("1\n2\n")
    mirror.push(first, BUCKET)
    (second / "metrics.jsonl").write_text("mine\n")
    mirror.pull(second, BUCKET)
    seen["its own stay"] = contents(second)
    (second / "config.json").unlink()
    mirror.pull(second, BUCKET)
    seen["all of it"] = contents(second)
    # Half of a folder, as a machine leaves it that is taken away while it copies.
    mirror._store().pipe_file(f"{BUCKET}/export/second.safetensors", b"half")
    mirror.pull(root / "third", BUCKET)
    seen["half"] = contents(root / "third")
    mirror._store().pipe_file(f"{BUCKET}/{mirror.LIST}", json.dumps({"../../outside": 1}).encode())
    try:
        mirror.pull(root / "fourth", BUCKET)
    except ValueError as error:
        seen["outside"] = str(error)
    try:
        mirror.push(first / "launch", "gs://no-such-bucket/run")
    except OSError as error:
        seen["no bucket"] = str(error)
    return seen


def main(root: Path) -> None:
    logging.disable(logging.WARNING)  # gcsfs looks for credentials
    with google():
        print(json.dumps(walk(root)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
