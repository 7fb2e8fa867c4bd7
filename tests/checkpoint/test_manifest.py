"""A folder is what was written, bit for bit, or it is said what is wrong with it."""

import hashlib
import json
import os

import numpy as np
import pytest
import xxhash

from e5jax import storage
from e5jax.checkpoint import manifest
from e5jax.checkpoint.manifest import DamagedError

FLIPS = int(os.environ.get("E5JAX_FLIPS", "60"))
FACTS = {"step": 7, "identity": {"data": "1f…"}}


BOTH = pytest.mark.parametrize("thorough", [False, True], ids=["xxh3", "sha256"])


@pytest.fixture
def folder(tmp_path):
    """Files of several sizes, an empty one among them, and their manifest."""
    random = np.random.default_rng(0)
    for name, size in {"a": 5_000, "b/c": 40_000, "b/d/e.json": 300, "empty": 0}.items():
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(size))
    manifest.write(tmp_path / "made", FACTS)
    return tmp_path / "made"


def test_what_was_written_is_found_again(folder):
    found = manifest.check(folder)
    assert found.facts == FACTS
    assert {path: entry.bytes for path, entry in found.files.items()} == {
        "a": 5_000,
        "b/c": 40_000,
        "b/d/e.json": 300,
        "empty": 0,
    }
    assert found == manifest.read(folder)
    assert found.bytes == 45_300


@BOTH
def test_every_flipped_bit_is_found_wherever_it_is(folder, thorough):
    random = np.random.default_rng(1)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = np.array([path.stat().st_size for path in paths])
    for flip in range(FLIPS):
        # One in five hits the manifest itself, which is small.
        path = (
            folder / manifest.NAME
            if flip % 5 == 0
            else paths[random.choice(len(paths), p=sizes / sizes.sum())]
        )
        whole = path.read_bytes()
        place, bit = divmod(int(random.integers(8 * len(whole))), 8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match=path.name):
            manifest.check(folder, thorough=thorough)
        path.write_bytes(whole)
    manifest.check(folder, thorough=thorough)


def swap(folder):
    a, b = folder / "a", folder / "b/c"
    kept = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(kept)


def link(folder):
    (folder / "a").rename(folder.parent / "elsewhere")
    (folder / "a").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "said"),
    {
        "cut short": (
            lambda folder: os.truncate(folder / "b/c", 39_999),
            "b/c: 39,999 bytes, and 40,000 were written",
        ),
        "emptied": (lambda folder: os.truncate(folder / "a", 0), "a: 0 bytes"),
        "deleted": (lambda folder: (folder / "empty").unlink(), "empty: is missing"),
        "extra": (lambda folder: (folder / "b/new").touch(), "b/new: does not belong there"),
        "extra link": (
            lambda folder: (folder / "new").symlink_to("/"),
            "new: does not belong there",
        ),
        "swapped": (swap, "a: 40,000 bytes, and 5,000"),
        "renamed": (lambda folder: (folder / "a").rename(folder / "z"), "a: is missing"),
        "a link to the same bytes": (link, "a: 0 bytes"),
        "no manifest": (
            lambda folder: (folder / manifest.NAME).unlink(),
            "no MANIFEST: it was not finished",
        ),
        "half a manifest": (lambda folder: os.truncate(folder / manifest.NAME, 100), "MANIFEST: "),
        "empty manifest": (lambda folder: os.truncate(folder / manifest.NAME, 0), "MANIFEST: "),
        "no JSON": (
            lambda folder: (folder / manifest.NAME).write_text(f"[]\n{manifest._digest('[]')}\n"),
            "cannot be read",
        ),
        "no files": (
            lambda folder: (folder / manifest.NAME).write_text(f"{{}}\n{manifest._digest('{}')}\n"),
            "cannot be read",
        ),
    }.values(),
)
def test_damage_is_named(folder, damage, said):
    damage(folder)
    with pytest.raises(DamagedError) as caught:
        manifest.check(folder)
    assert said in str(caught.value)


SIZES = (1, 999, 1_000, 1_001, 3_000, 4_500)


@BOTH
def test_a_file_of_several_pieces_is_hashed_piece_by_piece_and_every_flipped_bit_of_it_is_found(
    thorough, tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "PIECE", 1_000)
    monkeypatch.setattr(storage, "BLOCK", 300)
    whole = np.random.default_rng(2).bytes(4_500)
    for size in SIZES:
        (tmp_path / str(size)).write_bytes(whole[:size])
    found = manifest.write(tmp_path, {}).files
    for name, of in {"sha256": hashlib.sha256, "xxh3_128": xxhash.xxh3_128}.items():
        for size in SIZES:
            pieces = [
                of(whole[start : min(start + 1_000, size)]) for start in range(0, size, 1_000)
            ]
            wanted = (
                pieces[0] if size <= 1_000 else of(b"".join(piece.digest() for piece in pieces))
            )
            assert (found[str(size)].bytes, found[str(size)].sums[name]) == (
                size,
                wanted.hexdigest(),
            )
    for place in (0, 999, 1_000, 2_500, 4_499):
        (tmp_path / "4500").write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        with pytest.raises(DamagedError, match="4500: its contents"):
            manifest.check(tmp_path, thorough=thorough)
    (tmp_path / "4500").write_bytes(whole[1_000:2_000] + whole[:1_000] + whole[2_000:])
    with pytest.raises(DamagedError, match="4500: its contents"):
        manifest.check(tmp_path, thorough=thorough)


def rewrite(folder, change):
    """Puts another manifest there, with a checksum that fits."""
    body = json.loads((folder / manifest.NAME).read_bytes().split(b"\n")[0])
    change(body)
    text = json.dumps(body)
    (folder / manifest.NAME).write_text(f"{text}\n{manifest._digest(text)}\n")


@pytest.mark.parametrize(("name", "thorough"), [("xxh3_128", False), ("sha256", True)])
def test_each_way_of_checking_looks_at_its_own_checksum(name, thorough, folder):
    rewrite(folder, lambda body: body["files"]["a"][1].update({name: "0"}))
    manifest.check(folder, thorough=not thorough)
    with pytest.raises(DamagedError, match="a: its contents"):
        manifest.check(folder, thorough=thorough)


def test_a_manifest_with_sha256_alone_is_read_and_checked_by_it(folder):
    def old(body):
        files = {path: [count, sums["sha256"]] for path, (count, sums) in body["files"].items()}
        body.update(format=2, files=files)

    rewrite(folder, old)
    assert manifest.check(folder).facts == FACTS
    (folder / "a").write_bytes(b"\0" * 5_000)
    with pytest.raises(DamagedError, match="a: its contents"):
        manifest.check(folder)


def test_a_manifest_of_another_format_is_refused(folder):
    rewrite(folder, lambda body: body.update(format=4))
    with pytest.raises(DamagedError, match="format 4; this e5jax reads 2 and 3"):
        manifest.check(folder)
