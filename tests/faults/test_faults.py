"""The short set of faults; the long one is `python -m tests.faults`, and its table is in benchmarks/results/.

Every trial is drawn from a seed, which `E5JAX_FAULT_SEED` changes.
"""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.launcher import record
from tests.faults.bench import ALONE, LONG, PAIR, Bench, resumed, send
from tests.faults.kills import kills, pairs
from tests.faults.material import EVERY, in_another_process
from tests.faults.notices import notices
from tests.faults.rivals import rivals
from tests.faults.signals import ENDS, signals
from tests.faults.stuck import stuck
from tests.launch.runs import Place, comes_to, forget, said
from tests.storage import emulators

STEPS = 16
SEED = int(os.environ.get("E5JAX_FAULT_SEED") or 3)
KILLED = range(SEED, SEED + 3)  # one of them saves in the background; the long set has a hundred
KILLS = 3  # a run


@pytest.fixture(scope="module")
def bench(tmp_path_factory, worker_id) -> Iterator[Bench]:
    """All workers of pytest share what their runs have in common."""
    print(f"E5JAX_FAULT_SEED={SEED}")
    own = (
        tmp_path_factory.mktemp("faults")
        if worker_id == "master"
        else tmp_path_factory.getbasetemp().parent / "faults"
    )
    with Bench(own, STEPS) as made:
        yield made


def test_runs_that_are_killed_lose_what_they_may_and_end_with_the_same_bits(bench):
    found = [kills(bench, seed, times=KILLS, background=seed % 3 == 0) for seed in KILLED]
    whole, *killed = bench.digests([bench.whole(ALONE), *(Path(one["run"]) for one in found)])
    assert sum(len(one["phases"]) for one in found) > (KILLS - 1) * len(
        KILLED
    )  # one may have come to its end before
    assert whole["step"] == STEPS
    assert killed == [whole] * len(KILLED)
    for one in found:
        assert max(one["again"], default=0) <= EVERY * (2 if one["trial"] == "background" else 1), (
            one
        )


def test_a_notice_to_one_of_two_processes_stops_both_at_one_step_and_the_run_ends_with_the_same_bits(
    bench,
):
    phase = ("compile", "step", "export")[SEED % 3]  # the long set has them all, many times
    found = notices(bench, SEED, phase, PAIR)
    assert found["codes"] == [75, 75]
    assert (
        found["resumed"]
        == found["saved"]
        == {"compile": 0, "export": STEPS}.get(phase, found["saved"])
    )
    whole, told = bench.digests([bench.whole(PAIR), Path(found["run"])])
    assert told == whole


def test_a_signal_to_a_run_with_workers_or_the_death_of_one_ends_it_and_it_resumes_with_the_same_bits(
    bench,
):
    trial = signals(bench, SEED)
    assert trial["code"] in (0, ENDS[trial["who"]]), trial  # 0: it was over
    assert len(trial["lines"]) == (trial["code"] != 0), trial
    whole, ended = bench.digests([bench.whole(ALONE), Path(trial["run"])])
    assert ended == whole


def test_when_one_of_two_processes_is_killed_the_other_leaves_and_the_run_ends_with_the_same_bits(
    bench,
):
    found = pairs(bench, SEED)
    assert found["code"] != 0
    whole, killed = bench.digests([bench.whole(PAIR), Path(found["run"])])
    assert killed == whole


def test_of_two_processes_that_begin_at_one_instant_one_trains_and_the_other_names_it(bench):
    found = rivals(bench, SEED)
    assert found["codes"] == [0, 3], found["said"]
    assert found["once"]
    assert found["named"], found["said"]
    whole, run = bench.digests([bench.whole(ALONE), Path(found["run"])])
    assert run == whole


@pytest.mark.parametrize("kind", ["gs", "s3"])
def test_two_processes_that_save_into_a_bucket_go_on_from_it_and_end_with_the_same_bits(
    kind, bench
):
    run = bench.folder / f"bucket-{kind}"
    into = (
        f"--config.checkpoint.folder={kind}://bucket/run",
        "--config.checkpoint.every=8",
    )  # a save takes seconds
    with emulators.in_another_process(kind) as variables:
        children = bench.start(run, PAIR, *into, **variables)
        children[0].reaches("step", 9, LONG)
        for child in children:
            send(child)
            child.wait(LONG)
        children = bench.start(run, PAIR, *into, **variables)
        assert [child.wait(LONG) for child in children] == [0, 0], children[0].said
    assert resumed(children[0]) == 8
    assert not (run / "checkpoints").exists()
    bits = [
        (folder / "export" / "model.safetensors").read_bytes()
        for folder in (bench.whole(PAIR), run)
    ]
    assert bits[0] == bits[1]


def test_whoever_sleeps_is_named_by_both_and_its_stack_is_shown(bench):
    found = stuck(bench, 1 + 2 * (SEED % 3), limit=4)
    assert found["codes"] == [99, 99]
    assert found["named"], found["said"]


def test_processes_of_two_configurations_are_refused_before_anything_is_written(bench):
    run = bench.folder / "two"
    children = bench.start(run, PAIR, last=("--config.seed=5",))
    assert [child.wait(LONG) for child in children] == [3, 3]
    for child in children:
        assert re.search(
            r"disagree: config\.seed is 0 in process 0 and 5 in process 1; start all of them",
            child.said,
        )
    assert not run.exists()


def test_sigterm_through_the_wrapper_saves_and_the_run_ends_with_the_same_bits(bench):
    place = Place(bench.folder, bench.root)
    told, only = place.folder / "wrapped", "--config.stages=('train',)"
    child = place.start("wrapped", "--num-processes=2", only, steps=STEPS)
    comes_to(told, 1, 3)
    child.send_signal(signal.SIGTERM)
    said(child, 75)
    ((files, state),) = record.states(told)
    assert (state.end, len(state.attempts), record.is_running(files)) == (75, 1, False)
    assert 3 <= max(int(path.parent.name) for path in told.glob("checkpoints/*/MANIFEST")) < STEPS
    forget("wrapped")
    bench.finish(
        told, PAIR, "--config.checkpoint.every=4", only
    )  # tests/launch/test_local.py resumes by the wrapper, and has minutes
    (line,) = in_another_process("difference", bench.root, bench.whole(PAIR), told)
    found = json.loads(line)
    assert found == {
        "steps": [STEPS, STEPS],
        "apart": 0,
        "moments": 0,
        "batches": True,
        "hashes": True,
    }
