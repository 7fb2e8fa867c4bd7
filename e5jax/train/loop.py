"""The training loop: open what is needed, say what is trained, then one short loop."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.checkpoint.ownership import owned
from e5jax.checkpoint.retention import Retention
from e5jax.config import Mesh, Training
from e5jax.config.serialize import to_json
from e5jax.config.validate import check_dimensions, check_shards
from e5jax.data.packing import digest
from e5jax.data.prefetch import Prefetcher
from e5jax.data.records import Batch, Metrics
from e5jax.distributed import heartbeat
from e5jax.distributed.coordination import Process
from e5jax.errors import ConfigError
from e5jax.hardware import Peak, peak_flops
from e5jax.mesh import make_mesh
from e5jax.model import hf_weights
from e5jax.model.model_def import Parameters
from e5jax.model.quantise import check_groups
from e5jax.train import state as states
from e5jax.train import temperature
from e5jax.train.batch_stats import Measures
from e5jax.train.build import TrainStep, abstract_arguments, build_step, put_batch
from e5jax.train.flops import parameters
from e5jax.train.inputs import Inputs
from e5jax.train.metrics import MetricLog
from e5jax.train.probe import Probe
from e5jax.train.profile import Trace
from e5jax.train.run_record import changes, record
from e5jax.train.skipped import Skipped
from e5jax.train.state import State
from e5jax.versions import versions
from e5jax.workdir.directory import Workdir


class PendingStep(NamedTuple):
    """A step that the devices have been given, and that nobody has looked at yet."""

    number: int
    batch: Batch
    waited: float  # seconds, for the batch
    metrics: Metrics


class Ready(NamedTuple):
    """All that the loop works with."""

    mesh: jax.sharding.Mesh
    learner: TrainStep
    frozen: Parameters
    state: State
    start: int
    probe: Probe
    changed: Sequence[
        str
    ] = ()  # of data, base and tokenizer since the checkpoint it goes on from, where that was allowed
    facts: Mapping[str, Any] = MappingProxyType({})  # what its checkpoints say of the run


def train(
    run: Training,
    inputs: Inputs,
    workdir: Workdir,
    name: str,
    allow: bool = False,
    begin: Callable[[int], None] = lambda _: None,
    process: Process | None = None,
) -> int:
    """Trains to `run.optim.steps`, from the newest checkpoint if there is one. Returns the number of steps taken now.

    A checkpoint of other data, base or tokenizer is refused, or gone on from and the difference recorded: `allow`. `begin` gets the
    step from which training goes on, once nothing can refuse it any more.
    """
    process = process or Process()
    process.check_same(inputs.identity)
    mesh = make_mesh(run.mesh)
    check_shards(run.batch, mesh.shape["data"] * mesh.shape["fsdp"])
    device = mesh.local_devices[0]
    needed = {"cudnn": "gpu", "splash": "tpu"}.get(run.model.attention)
    if needed not in (None, device.platform):
        raise ConfigError(
            f"config.model.attention={run.model.attention!r} runs on a {needed} only, and this is {device.device_kind}; use 'auto'"
        )
    check_groups(inputs.spec, run.model.quantisation, Mesh(**mesh.shape))
    check_dimensions(run.loss, inputs.spec.hidden)
    peak = peak_flops(device)
    kept, folder = run.checkpoint, workdir.checkpoints_of(run.checkpoint)
    retention = Retention(kept.keep, kept.forever)
    own = owned(folder, workdir, run) if process.is_first else nullcontext()
    with (
        own,
        jax.set_mesh(mesh),
        Checkpoints(
            folder, retention, kept.seconds, background=kept.background, process=process
        ) as checkpoints,
    ):
        process.heartbeat.enter(heartbeat.LOAD)
        ready = _prepare(run, inputs, mesh, checkpoints, allow)
        if ready.start >= run.optim.steps:
            _check_end(ready.start, run)
            begin(ready.start)
            return 0
        with Prefetcher(
            inputs.batches, ready.start, run.optim.steps, run.data.workers
        ) as feed:  # works while XLA compiles
            process.heartbeat.enter(heartbeat.COMPILE)
            step = ready.learner.step.lower(*abstract_arguments(run, ready.learner, mesh)).compile()
            begin(ready.start)
            if ready.changed and process.is_first:
                record(workdir, ready.changed, step=ready.start)
            ready = ready._replace(facts=facts(run, inputs, mesh, workdir))
            _say(name, run, ready, peak)
            measures = Measures(ready.learner.model_def, run.batch.queries, peak.flops)
            writes = process.is_first
            with MetricLog(
                workdir.metrics,
                run.log,
                name=name,
                start=ready.start,
                steps=run.optim.steps,
                writes=writes,
            ) as log:
                reporters = Reporters(
                    measures, log, Skipped(workdir.skipped, run.guard, inputs.batch_builder)
                )
                _loop(
                    run,
                    ready,
                    step,
                    feed,
                    checkpoints,
                    reporters,
                    Trace(run.profile, workdir.profile, name),
                    process,
                )
    return run.optim.steps - ready.start


class Reporters(NamedTuple):
    """Receive the metrics of each finished step."""

    measures: Measures
    log: MetricLog
    skipped: Skipped


def _loop(
    run: Training,
    ready: Ready,
    step: jax.stages.Compiled,
    feed: Prefetcher,
    checkpoints: Checkpoints,
    reporters: Reporters,
    trace: Trace,
    process: Process,
) -> None:
    state, pending = ready.state, None
    process.heartbeat.enter(heartbeat.WAIT)
    # Until all processes are here a signal ends one at once; afterwards a step needs them all.
    process.meet("compiled")
    with process.signals.held(), trace, jax.transfer_guard("disallow"):
        process.heartbeat.enter(heartbeat.BATCH, ready.start + 1)
        for number, batch in enumerate(feed, ready.start + 1):
            process.heartbeat.enter(heartbeat.STEP, number)
            checkpoints.poll()
            if trace.turns(number):
                pending = _log(pending, reporters)
                jax.block_until_ready(state)
                trace.turn(number)
                reporters.measures.restart()
            with trace.step(number):
                state, metrics = step(
                    state, ready.frozen, put_batch(batch, ready.mesh)
                )  # returns at once
            # The metrics of the step before: fetching them now never makes the device wait.
            _log(pending, reporters)
            pending = PendingStep(number, batch, feed.waited, metrics)
            if ready.probe.due(number):
                pending = _log(
                    pending, reporters, partial(ready.probe.scores, state.parameters, ready.frozen)
                )
                reporters.measures.restart()
            stops = process.stops(number)
            if stops or number % run.checkpoint.every == 0 or number == run.optim.steps:
                # A checkpoint must not outrun the check of its own step.
                pending = _log(pending, reporters)
                process.heartbeat.enter(heartbeat.SAVE)
                save(checkpoints, number, state, ready.facts)
                reporters.measures.restart()
            if stops:
                break
            process.heartbeat.enter(heartbeat.BATCH, number + 1)
        process.heartbeat.enter(heartbeat.SAVE)
        checkpoints.finish()
        process.settle()


def _log(
    pending: PendingStep | None,
    reporters: Reporters,
    probe: Callable[[], Mapping[str, float]] = dict,
) -> None:
    """Waits for a step, writes its metrics and what the probe says, and looks whether the run may go on."""
    if pending is None:
        return
    hashed = digest(pending.batch)  # while the device works
    found = jax.device_get(pending.metrics)
    scores = probe() if found.finite else {}
    reporters.log.write(
        pending.number,
        {**reporters.measures.scalars(found, pending.waited), **scores},
        batch=hashed,
    )
    reporters.skipped.look(pending.number, pending.batch, hashed, found)


def _prepare(
    run: Training, inputs: Inputs, mesh: jax.sharding.Mesh, checkpoints: Checkpoints, allow: bool
) -> Ready:
    """Reads the base, and the newest checkpoint or fresh numbers for what is trained."""
    checkpoints.look()
    learner = build_step(run, inputs.spec, mesh.devices.flat[0].platform)
    made = learner.model_def
    probe = Probe(run, inputs.tokenizer, learner.objective, mesh)
    frozen, trained = _base(run, inputs, learner, mesh)
    start = checkpoints.newest()
    if start is None:
        fresh = [name for name in made.trained if name not in trained]
        trained |= made.initialise(fresh, mesh, run.seed) if fresh else {}
        trained |= temperature.fresh(run.loss, mesh)
        return Ready(
            mesh, learner, frozen, states.fresh(trained, learner.optimiser, mesh), 0, probe
        )
    changed = checkpoints.check_identity(start, inputs.identity, allow)
    wanted, _, _ = abstract_arguments(run, learner, mesh)
    return Ready(mesh, learner, frozen, restore(checkpoints, start, wanted), start, probe, changed)


def _check_end(start: int, run: Training) -> None:
    """Refuses to call a longer training the result of fewer steps."""
    if start > run.optim.steps:
        raise ConfigError(
            f"config.optim.steps={run.optim.steps}: the newest checkpoint is of step {start}; "
            f"choose at least {start}, or another --workdir"
        )


def _base(
    run: Training, inputs: Inputs, learner: TrainStep, mesh: jax.sharding.Mesh
) -> tuple[Parameters, Parameters]:
    """(frozen, trained) numbers to start from: of the base, and of an adapter to go on with; none from scratch."""
    if inputs.base is None:
        return {}, {}
    made = learner.model_def
    in_base = {name for name, leaf in made.leaves.items() if not leaf.is_adapter}
    lora = set(made.trained) - in_base - {"added"}
    frozen = made.abstract(made.frozen, mesh, run.model.dtype)
    trained = made.abstract([name for name in made.trained if name in in_base], mesh, "float32")
    found = hf_weights.load(inputs.base, inputs.spec, frozen | trained)
    begun = (
        inputs.start.load(inputs.spec, made.abstract(lora, mesh, "float32")) if inputs.start else {}
    )
    if inputs.spec.added:  # where the known tokens are, on average: random rows would be far longer than those of some bases
        (rows,) = made.abstract(["added"], mesh, "float32").values()
        begun["added"] = jax.jit(_mean_rows, static_argnums=1, out_shardings=rows.sharding)(
            found["embedding"], inputs.spec.added
        )
    return {name: found[name] for name in frozen}, {name: found[name] for name in trained} | begun


def _mean_rows(table: jax.Array, count: int) -> jax.Array:
    mean = jnp.mean(table.astype(jnp.float32), axis=0, keepdims=True)
    return jnp.repeat(mean, count, axis=0)


def save(checkpoints: Checkpoints, number: int, state: State, said: Mapping[str, Any]) -> None:
    """Writes checkpoint `number`, or begins to."""
    checkpoints.save(number, state.parameters, _rest(state), said)


def facts(
    run: Training, inputs: Inputs, mesh: jax.sharding.Mesh, workdir: Workdir
) -> dict[str, Any]:
    """What a checkpoint says of itself: on what it was trained, how, and with what; and what was another before."""
    return {
        "identity": dict(inputs.identity),
        "config": hashlib.sha256(to_json(run).encode()).hexdigest(),
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
        "versions": versions(),
        "changes": changes(workdir),
    }


def restore(checkpoints: Checkpoints, number: int, wanted: State) -> State:
    """Reads checkpoint `number` into the placement of `wanted`."""
    parameters, rest = checkpoints.restore(number, wanted.parameters, _rest(wanted))
    return State(parameters=parameters, **rest)


def _rest(state: State) -> dict[str, Any]:
    return {name: part for name, part in state._asdict().items() if name != "parameters"}


def _say(name: str, run: Training, ready: Ready, peak: Peak) -> None:
    if jax.process_index():
        return
    made, devices = ready.learner.model_def, ready.mesh.devices
    base = [name for name in made.frozen if not name.endswith(hf_weights.SCALE)]
    integers = "" if made.quantisation == "none" else f" (kernels {made.quantisation})"
    begin = f"resumes at step {ready.start}" if ready.start else "starts"
    print(
        f"{name}: {begin} of {run.optim.steps}; trains {parameters(made, made.trained):,} parameters, "
        f"{parameters(made, base):,} frozen{integers}, {run.model.dtype} on {devices.size} × {devices.flat[0].device_kind} "
        f"(mesh {dict(ready.mesh.shape)}), attention {made.kernel}, remat {run.model.remat}, "
        f"peak {peak.flops / 1e12:.3g} TFLOP/s a device ({peak.source})",
        flush=True,
    )
