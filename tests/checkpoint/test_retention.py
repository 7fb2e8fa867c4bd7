"""Which checkpoints stay, which are trusted, and what becomes of the others."""

import json
import os
import re

import pytest

from e5jax import storage
from e5jax.checkpoint import manifest, retention
from e5jax.checkpoint.retention import Retention
from e5jax.errors import ConfigError


def make(directory, *numbers, finished=True):
    for step in numbers:
        (directory / str(step)).mkdir(parents=True)
        (directory / str(step) / "array").write_text(f"numbers of {step}")
        if finished:
            manifest.write(directory / str(step), {"step": step})


def test_the_newest_sound_one_wins_and_newer_ones_say_why_not(tmp_path):
    make(tmp_path, 5, 10, 20)
    make(tmp_path, 30, finished=False)
    (tmp_path / "20" / "array").write_text("numbers of 21")
    found, wrong = retention.newest_sound(tmp_path)
    assert found is not None
    assert found.step == found.manifest.facts["step"] == 10
    assert set(wrong) == {20, 30}
    assert "array: its contents have changed" in wrong[20]
    assert "not finished" in wrong[30]


def test_without_a_sound_one_there_is_none(tmp_path):
    assert retention.newest_sound(tmp_path / "nothing") == (None, {})
    make(tmp_path, 1, finished=False)
    assert retention.newest_sound(tmp_path)[0] is None


def test_names_that_are_no_steps_are_left_alone(tmp_path):
    make(tmp_path, 10)
    for name in ("quarantine", "notes", "-3", "1.5"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert retention.steps(tmp_path) == [10]


def test_what_is_set_aside_keeps_its_files_and_its_reason_and_hides_no_other(tmp_path):
    for text in ("first", "second", "third"):
        make(tmp_path, 8, finished=False)
        (tmp_path / "8" / "array").write_text(text)
        retention.quarantine(tmp_path, 8, f"the {text} reason")
    held = tmp_path / retention.QUARANTINE
    assert [(held / name / "array").read_text() for name in ("8", "8-1", "8-2")] == [
        "first",
        "second",
        "third",
    ]
    assert [(held / f"{name}.txt").read_text().split()[1] for name in ("8", "8-1", "8-2")] == [
        "first",
        "second",
        "third",
    ]
    assert retention.steps(tmp_path) == []


@pytest.mark.parametrize(
    ("keep", "forever", "stay"),
    [(1, 0, [60]), (2, 0, [50, 60]), (9, 0, [10, 20, 30, 40, 50, 60]), (2, 30, [30, 50, 60])],
)
def test_the_newest_stay_and_every_so_manieth_for_good(tmp_path, keep, forever, stay):
    make(tmp_path, 10, 20, 30, 40, 50, 60)
    gone = retention.expire(tmp_path, Retention(keep, forever))
    assert retention.steps(tmp_path) == stay
    assert gone == [step for step in (10, 20, 30, 40, 50, 60) if step not in stay]


def test_an_unfinished_one_neither_counts_nor_goes(tmp_path):
    make(tmp_path, 10, 20)
    make(tmp_path, 5, 30, finished=False)
    retention.expire(tmp_path, Retention(1))
    assert retention.steps(tmp_path) == [5, 20, 30]


def test_a_killed_deletion_leaves_nothing_that_looks_like_a_checkpoint(tmp_path, monkeypatch):
    make(tmp_path, 10, 20)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(storage.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            retention.expire(tmp_path, Retention(1))
    assert retention.steps(tmp_path) == [20]
    (tmp_path / "30.orbax-checkpoint-tmp" / "half").mkdir(parents=True)
    retention.clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["20"]


def test_the_listing_tells_sound_from_damaged(tmp_path):
    make(tmp_path, 10, 20, 30)
    retention.quarantine(tmp_path, 30, "a reason")
    assert retention.listing(tmp_path, verify=False)[1]
    lines, sound = retention.listing(tmp_path, verify=True)
    assert sound
    assert ["sound" in line for line in lines] == [True, True, False]
    assert "in quarantine: a reason" in lines[2]
    (tmp_path / "20" / "array").write_text("numbers of 21")
    lines, sound = retention.listing(tmp_path, verify=True)
    assert not sound
    assert "DAMAGED: array" in lines[1]


def test_whoever_asks_for_the_listing_has_sha256_compared_and_a_restore_does_not(tmp_path):
    make(tmp_path, 10)
    place = tmp_path / "10" / manifest.NAME
    body = re.sub('"sha256": "[0-9a-f]{64}"', '"sha256": "0"', place.read_text().splitlines()[0])
    place.write_text(f"{body}\n{manifest._digest(body)}\n")
    assert retention.newest_sound(tmp_path)[0] is not None
    assert not retention.listing(tmp_path, verify=True)[1]


def test_a_checkpoint_says_what_it_is_of(tmp_path):
    make(tmp_path, 10, 20)
    assert json.loads(retention.describe(tmp_path, None)) == {"step": 20, "bytes": 13, "files": 1}
    assert json.loads(retention.describe(tmp_path, 10))["step"] == 10
    with pytest.raises(ConfigError, match=r"no checkpoint 15; there are \[10, 20\]"):
        retention.describe(tmp_path, 15)


def test_nothing_is_deleted_that_is_only_named_like_what_a_killed_process_left(tmp_path):
    names = ["thesis.deleted", "5.deleted", "x.orbax-checkpoint-tmp", "notes", "6.deleted.bak"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").touch()
    (tmp_path / "7.deleted").write_text("a file")
    (tmp_path / "8.deleted" / "parameters").mkdir(parents=True)
    (tmp_path / "9.deleted").mkdir()
    retention.clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "7.deleted"])
