"""Traces of a run: of the steps that were asked for, whole, closed whatever happens, and without effect on the numbers."""

from pathlib import Path

import jax
import pytest

from e5jax.config import Profile
from e5jax.train import loop
from e5jax.workdir.directory import Workdir
from tests.train.test_loop import inputs_for, place, rows, scratch_run

__all__ = ["place"]  # a fixture
TIMES = {
    "train/data_wait_seconds",
    "train/data_wait_share",
    "train/step_seconds",
    "train/pairs_per_second",
    "train/tokens_per_second",
    "train/tflops_per_device",
}
TIMES |= {"train/model_flops_utilisation", "train/memory_bytes"}


def train(root: Path, workdir: Path, profile: Profile, steps: int = 6) -> int:
    run = scratch_run(root)
    run.profile, run.optim.steps = profile, steps
    return loop.train(run, inputs_for(run), Workdir(workdir), "train")


def traces(workdir: Path) -> dict[str, jax.profiler.ProfileData]:
    files = sorted(workdir.glob("profile/plugins/profile/*/*.xplane.pb"))
    return {file.parent.name: jax.profiler.ProfileData.from_file(str(file)) for file in files}


def annotated(trace: jax.profiler.ProfileData) -> list[int]:
    """Steps that are marked in a trace."""
    events = (event for plane in trace.planes for line in plane.lines for event in line.events)
    return sorted(int(dict(event.stats)["step_num"]) for event in events if event.name == "train")


def names(trace: jax.profiler.ProfileData) -> list[str]:
    return [event.name for plane in trace.planes for line in plane.lines for event in line.events]


def executions(trace: jax.profiler.ProfileData, opcode: str) -> int:
    """How often the step's program was run by a device, counted by an operation that it does once at its end."""
    events = [event for plane in trace.planes for line in plane.lines for event in line.events]
    found = [dict(event.stats) for event in events]
    return len(
        {
            (s["run_id"], s["device_ordinal"])
            for s in found
            if s.get("hlo_module") == "jit_step" and opcode in s["hlo_op"]
        }
    )


def numbers(workdir: Path) -> list[dict]:
    return [
        {name: value for name, value in row.items() if name not in TIMES} for row in rows(workdir)
    ]


def test_a_trace_has_the_steps_asked_for_with_all_their_work_and_changes_no_number(
    place, tmp_path, capsys
):
    train(place, tmp_path / "plain", Profile())
    assert not traces(tmp_path / "plain")
    assert "trace" not in capsys.readouterr().out

    train(place, tmp_path / "traced", Profile(first=3, steps=2))
    found = traces(tmp_path / "traced")
    assert list(found) == ["step_3"]
    assert annotated(found["step_3"]) == [3, 4]
    assert executions(found["step_3"], "fusion") == 2 * 8  # devices
    assert not [
        name for name in names(found["step_3"]) if name.startswith("$")
    ]  # of Python's calls: threads of a save would fail
    assert numbers(tmp_path / "traced") == numbers(tmp_path / "plain")
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "trace" in line]
    assert f"steps 3 to 4 in {tmp_path / 'traced' / 'profile'}" in said
    assert f"xprof --logdir={tmp_path / 'traced' / 'profile'}" in said


def test_a_resumed_run_traces_what_is_left_of_the_steps_and_nothing_beyond(place, tmp_path, capsys):
    profile = Profile(first=2, steps=3)
    train(place, tmp_path, Profile(), steps=2)
    assert train(place, tmp_path, profile, steps=4) == 2
    assert {name: annotated(trace) for name, trace in traces(tmp_path).items()} == {
        "step_3": [3, 4]
    }
    assert "steps 3 to 4" in capsys.readouterr().out
    assert train(place, tmp_path, profile, steps=6) == 2
    assert list(traces(tmp_path)) == ["step_3"]
    assert "trace" not in capsys.readouterr().out


def test_an_interrupted_run_closes_its_trace(place, tmp_path, monkeypatch):
    put, calls = loop.put_batch, []

    def stops(batch, mesh):
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return put(batch, mesh)

    monkeypatch.setattr(loop, "put_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        train(place, tmp_path / "run", Profile(first=3, steps=3))
    assert annotated(traces(tmp_path / "run")["step_3"]) == [3, 4]
    with jax.profiler.trace(tmp_path / "another"):  # JAX refuses a second one while one is open
        pass
