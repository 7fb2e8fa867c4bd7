"""Checkpoints: whole, verified, in the background."""

import asyncio
import errno
import gc
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from threading import Event

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.serialization.serialization import async_serialize_from_host

from e5jax.checkpoint import manifest
from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.retention import Retention
from e5jax.config import Optim
from e5jax.errors import ConfigError, RunError
from e5jax.mesh import sharding
from e5jax.train import state
from e5jax.train.optim import optimiser
from e5jax.train.state import State
from tests import tiny

IDENTITY = {"data": "1f", "base": "2e", "tokenizer": "3d"}
MESHES = [(1, 1, 1), (2, 2, 2)]
UPDATE = optimiser(Optim(steps=10, warmup_steps=1))
AXES = {"a": ("layers", "embed", "rank"), "b": ("layers", "rank", "ff"), "norm": ("embed",)}
SHAPES = {"a": (2, 8, 4), "b": (2, 4, 6), "norm": (8,)}


def wanted(shape: tuple[int, int, int]) -> State:
    """The abstract state on a mesh."""
    mesh = tiny.mesh(*shape)
    placed = {
        n: jax.ShapeDtypeStruct(SHAPES[n], "float32", sharding=sharding(mesh, axes))
        for n, axes in AXES.items()
    }
    return state.abstract(placed, UPDATE, mesh)


def numbers(of: State, seed: int = 0) -> State:
    """Numbers for every leaf; small, large and odd ones, so that any rounding would show."""
    random = np.random.default_rng(seed)

    def make(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        values = random.standard_normal(leaf.shape) * 10.0 ** random.integers(-30, 30, leaf.shape)
        return jax.device_put(
            np.asarray(values if leaf.dtype == np.float32 else 7, leaf.dtype), leaf.sharding
        )

    return jax.tree.map(make, of)


def save(checkpoints: Checkpoints, step: int, found: State) -> None:
    checkpoints.save(step, found.parameters, rest(found), {"identity": IDENTITY})


def restore(checkpoints: Checkpoints, step: int, of: State) -> State:
    parameters, others = checkpoints.restore(step, of.parameters, rest(of))
    return State(parameters=parameters, **others)


def rest(of: State) -> dict[str, object]:
    return {name: part for name, part in of._asdict().items() if name != "parameters"}


def assert_same_bits(found: object, other: object) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def places(of: object) -> list[jax.sharding.Sharding]:
    return [leaf.sharding for leaf in jax.tree.leaves(of)]


@pytest.fixture(scope="module", params=MESHES, ids=str)
def saved(request, tmp_path_factory) -> tuple[Path, State]:
    """A directory with checkpoint 3, saved on a mesh, and what was saved."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    found = numbers(wanted(request.param))
    with Checkpoints(folder, Retention(2)) as checkpoints:
        save(checkpoints, 3, found)
    return folder, found


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_state_comes_back_bit_for_bit_on_any_mesh_and_placed_as_asked(saved, shape):
    folder, found = saved
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.newest() == 3
        again = restore(checkpoints, 3, wanted(shape))
    assert_same_bits(again, found)
    assert places(again) == places(wanted(shape))


def test_parameters_can_be_read_alone_whole_and_in_parts(saved):
    folder, found = saved
    with Checkpoints(folder) as checkpoints:
        again = checkpoints.open_parameters(3, wanted((1, 1, 1)).parameters)
    assert_same_bits({name: np.asarray(of) for name, of in again.items()}, found.parameters)
    assert_same_bits(np.asarray(again["a"][1]), np.asarray(found.parameters["a"])[1])


def test_a_stack_of_layers_is_stored_a_layer_at_a_time(saved):
    with Checkpoints(saved[0]) as checkpoints:
        opened = checkpoints.open_parameters(3, wanted((1, 1, 1)).parameters)
    assert opened["a"].chunk_layout.read_chunk.shape[0] == 1


def test_a_checkpoint_of_another_shape_is_refused(saved):
    of = wanted((1, 1, 1)).parameters
    wide = {**of, "a": jax.ShapeDtypeStruct((2, 8, 5), "float32", sharding=of["a"].sharding)}
    fewer, more = {name: of[name] for name in ("a", "b")}, {**of, "more": of["a"]}
    for asked, said in [
        (wide, r"a is \[2, 8, 4\], and \[2, 8, 5\] is asked for \(1 "),
        (fewer, r"norm is \[8\], and nothing"),
        (more, r"more is not there, and \[2, 8, 4\]"),
    ]:
        with (
            Checkpoints(saved[0]) as checkpoints,
            pytest.raises(ConfigError, match=f"checkpoint 3: does not fit.*{said}"),
        ):
            checkpoints.open_parameters(3, asked)


def test_the_same_identity_is_accepted(saved):
    with Checkpoints(saved[0]) as checkpoints:
        checkpoints.check_identity(3, dict(reversed(IDENTITY.items())))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": "99"}, ["another data ", '"1f" -> "99"']),
        ({"data": "99", "tokenizer": "88"}, ["another data, tokenizer ", '"3d" -> "88"']),
        ({"teacher": "77"}, ["another teacher ", 'null -> "77"']),
    ],
)
def test_a_changed_identity_is_refused_and_named(saved, change, named):
    with Checkpoints(saved[0]) as checkpoints, pytest.raises(ConfigError) as caught:
        checkpoints.check_identity(3, IDENTITY | change)
    for words in ["checkpoint 3", *named, "--workdir"]:
        assert words in str(caught.value)
    assert "base" not in str(caught.value)


def test_an_identity_that_lacks_an_entry_is_refused(saved):
    with (
        Checkpoints(saved[0]) as checkpoints,
        pytest.raises(ConfigError, match=r'another base .*"2e" -> null'),
    ):
        checkpoints.check_identity(
            3, {name: value for name, value in IDENTITY.items() if name != "base"}
        )


def test_a_new_directory_has_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path / "new", Retention(1)) as checkpoints:
        assert checkpoints.newest() is None


def test_only_the_newest_stay(tmp_path):
    found = numbers(wanted((1, 1, 1)))
    with Checkpoints(tmp_path / "checkpoints", Retention(2)) as checkpoints:
        for step in (1, 5, 9):
            save(checkpoints, step, found)
        checkpoints.finish()
        assert checkpoints.newest() == 9
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["5", "9"]


def test_what_is_saved_does_not_change_when_the_state_is_given_away(tmp_path):
    """The next step writes into the memory that the state was in, while the save goes on."""
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0, tree), donate_argnums=0)
    with Checkpoints(tmp_path, Retention(9)) as checkpoints:
        for step in range(1, 4):
            found = numbers(wanted((2, 2, 2)), seed=step)
            save(checkpoints, step, found)
            jax.block_until_ready(overwrite(found))
        checkpoints.finish()
        for step in range(1, 4):
            assert_same_bits(
                restore(checkpoints, step, wanted((1, 1, 1))), numbers(wanted((1, 1, 1)), seed=step)
            )


def test_it_says_what_it_was_made_of(saved):
    with Checkpoints(saved[0]) as checkpoints:
        said = checkpoints.facts(3)
    assert said == {
        "step": 3,
        "identity": IDENTITY,
        "parameters": {name: list(shape) for name, shape in SHAPES.items()},
    }


def test_a_flipped_bit_is_set_aside_and_the_one_before_it_is_used(tmp_path, capsys):
    with Checkpoints(tmp_path, Retention(3)) as checkpoints:
        for step in (1, 2):
            save(checkpoints, step, numbers(wanted((1, 1, 1)), seed=step))
    largest = max(
        (tmp_path / "2").rglob("[!M]*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    whole = bytearray(largest.read_bytes())
    whole[len(whole) // 2] ^= 1
    largest.write_bytes(whole)
    with Checkpoints(tmp_path) as reader:
        assert reader.newest() == 1
    assert (tmp_path / "2").is_dir()  # a reader moves nothing: somebody else may be writing
    with Checkpoints(tmp_path, Retention(3)) as writer:
        assert writer.newest() == 1
        assert_same_bits(restore(writer, 1, wanted((1, 1, 1))), numbers(wanted((1, 1, 1)), seed=1))
        save(writer, 2, numbers(wanted((1, 1, 1)), seed=5))
    assert "checkpoint 2 is not used: " in (said := capsys.readouterr().out)
    assert f"moved to {tmp_path / 'quarantine' / '2'}" in said
    with Checkpoints(tmp_path) as reader:
        assert reader.newest() == 2
        assert_same_bits(restore(reader, 2, wanted((1, 1, 1))), numbers(wanted((1, 1, 1)), seed=5))


def test_a_save_that_fails_in_the_background_is_known_at_the_next_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(tmp_path, Retention(3), background=True) as checkpoints:
        save(checkpoints, 1, numbers(wanted((1, 1, 1))))
        checkpoints.finish()
        monkeypatch.setattr(manifest, "write", full)
        save(checkpoints, 2, numbers(wanted((1, 1, 1))))
        wait([checkpoints._saving.result])
        with pytest.raises(
            RunError, match=r"checkpoint 2: could not be saved in .*No space left on device"
        ):
            checkpoints.poll()
        assert checkpoints.newest() == 1
        save(checkpoints, 3, numbers(wanted((1, 1, 1))))
        with pytest.raises(RunError, match="checkpoint 3"):
            checkpoints.finish()


@pytest.mark.parametrize("background", [False, True])
def test_a_save_that_takes_too_long_ends_the_run(background, tmp_path, monkeypatch):
    go = Event()
    monkeypatch.setattr(manifest, "write", lambda *_: go.wait(60))

    def run() -> None:
        with Checkpoints(tmp_path, Retention(3), seconds=1, background=background) as checkpoints:
            save(checkpoints, 1, numbers(wanted((1, 1, 1))))

    with pytest.raises(RunError, match="checkpoint 1: not saved within 1 s"):
        run()
    go.set()


@pytest.mark.parametrize("background", [False, True])
def test_a_save_is_whole_when_it_returns_but_for_one_in_the_background(
    background, tmp_path, monkeypatch
):
    real, slow = manifest.write, Event()

    def write(*of):
        slow.wait(60 if background else 0.2)
        return real(*of)

    monkeypatch.setattr(manifest, "write", write)
    with Checkpoints(tmp_path, Retention(3), background=background) as checkpoints:
        save(checkpoints, 1, numbers(wanted((1, 1, 1))))
        assert (tmp_path / "1" / manifest.NAME).exists() != background
        slow.set()


def test_an_error_of_the_run_is_not_hidden_by_one_of_its_last_save(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manifest, "write", full)

    def run() -> None:
        with Checkpoints(tmp_path, Retention(3), background=True) as checkpoints:
            save(checkpoints, 1, numbers(wanted((1, 1, 1))))
            raise KeyError("the run's own")

    with pytest.raises(KeyError) as caught:
        run()
    assert "checkpoint 1: could not be saved" in caught.value.__notes__[0]


def test_what_a_killed_save_left_is_no_checkpoint(tmp_path):
    with Checkpoints(tmp_path, Retention(3)) as checkpoints:
        save(checkpoints, 1, numbers(wanted((1, 1, 1))))
    for left in ("2.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp", "4"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "half").write_text("")
    with Checkpoints(tmp_path, Retention(3)) as checkpoints:
        assert checkpoints.newest() == 1
        save(checkpoints, 2, numbers(wanted((1, 1, 1))))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "quarantine"]


async def a_task_of_our_own() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("task", "logged"),
    [(a_task_of_our_own, ["asyncio"]), (partial(async_serialize_from_host, None, {}), [])],
    ids=["own task", "write of Orbax"],
)
def test_asyncio_reports_failed_tasks_except_writes_of_orbax(task, logged, tmp_path, caplog):
    """Orbax raises the first error and closes the event loop before the others are retrieved."""

    async def fail(task: Callable[[], Coroutine]) -> None:
        await asyncio.wait([asyncio.create_task(task())])

    with Checkpoints(tmp_path):
        asyncio.run(fail(task))
    gc.collect()
    assert [record.name for record in caplog.records] == logged
