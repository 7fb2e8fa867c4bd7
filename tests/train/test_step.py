"""The training step: what mesh and chunks must not change, and what the state goes through."""

import math
from dataclasses import replace
from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from e5jax.config import Batch, Lora, Model, Optim, Remat, Tokens, Training
from e5jax.data.records import Batch as Rows
from e5jax.data.records import Ids
from e5jax.mesh import BATCH
from e5jax.model import dense
from e5jax.plan.costs import operations
from e5jax.plan.hlo import parse
from e5jax.train import state as states
from e5jax.train import step as steps
from e5jax.train.build import TrainStep, abstract_arguments, build_step, put_batch
from e5jax.train.negatives import BatchInfo
from e5jax.train.step import encode, gather_text_vectors, loss_and_accuracy
from tests import tiny
from tests.train import exact
from tests.train.test_objective import LOSSES

SPEC = tiny.SPEC._replace(hidden=32, ff=64, head_size=8, layers=2)
MESHES = [(1, 1, 1), (8, 1, 1), (4, 2, 1), (2, 2, 2)]
CHUNKS = [1, 2, 8]
DROPOUT = Lora(rank=4, alpha=8.0, dropout=0.3)


PADDED = {"chunks": 1, "texts_a_row": 1, "shards": 1}
PACKED = {"texts_a_row": 3, "shards": 8}


def gradients(
    lora: Lora | None,
    sizes: tuple[int, int, int],
    kept: int = 0,
    scores: str = "dense",
    kept_on: str = "device",
    remat: str = "projections",
    unrolled: bool = False,
    **layout: int,
) -> tuple[float, dict[str, np.ndarray]]:
    """(loss, gradient of every trained parameter); dropout when the adapters have a rate."""
    kernel = (
        "blockwise" if remat == "attention" else "xla"
    )  # which alone has something of attention to keep
    of = tiny.made(SPEC, lora, remat).with_kernel(kernel)
    on = tiny.mesh(*sizes)
    trained, frozen = tiny.place(of, tiny.numbers(of), on)
    key = jax.random.key(5) if lora and lora.dropout else None
    with jax.set_mesh(on):
        batch = put_batch(tiny.batch(16, 2, width=12, change=tiny.mixed, **layout), on)
        objective = tiny.objective(of, scores=scores, block=5, kept_chunks=kept)._replace(
            kept_on=kept_on, unrolled=unrolled
        )
        loss = partial(loss_and_accuracy, objective)
        run = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (value, _), gradient = run(trained, frozen, batch, key)
    return float(value), jax.device_get(gradient)


@pytest.fixture(scope="module")
def padded():
    """The result on one device, one text a row, in one chunk; computed once for each kind of training."""
    found = {}

    def wanted(lora: Lora | None) -> tuple[float, dict[str, np.ndarray]]:
        if str(lora) not in found:
            found[str(lora)] = gradients(lora, (1, 1, 1), **PADDED)
        return found[str(lora)]

    return wanted


def assert_close(found: tuple, wanted: tuple) -> None:
    # The same float32 numbers summed in another order: over devices, chunks, heads.
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert set(found[1]) == set(wanted[1])
    for name, value in wanted[1].items():
        assert np.linalg.norm(value) > 0
        assert np.linalg.norm(found[1][name] - value) <= 1e-5 * np.linalg.norm(value), name


def doubled(of: list[Ids]) -> list[Ids]:
    """Some pairs share a query or a positive with another, on another shard too; some queries have two positives."""
    mixed = tiny.mixed(of)
    shared = [
        one._replace(passages=[mixed[0].passages[0], *one.passages[1:]]) for one in mixed[1::5]
    ]
    mixed[1::5] = shared
    mixed[2::7] = [one._replace(query=mixed[3].query) for one in mixed[2::7]]
    counts = [min(1 + i % 2, len(one.passages)) for i, one in enumerate(mixed)]
    return [
        one._replace(passages=one.passages[: count + 1], positives=count)
        for one, count in zip(mixed, counts, strict=True)
    ]


@pytest.mark.parametrize("scores", ["dense", "ring"])
def test_neither_packing_nor_mesh_nor_chunks_change_what_all_switches_make_of_a_batch(scores):
    found = []
    for sizes, layout, way in [
        ((1, 1, 1), PADDED, "dense"),
        ((4, 2, 1), {**PACKED, "chunks": 8}, scores),
    ]:
        of, on = tiny.made(SPEC), tiny.mesh(*sizes)
        trained, frozen = tiny.place(of, tiny.numbers(of), on)
        objective = tiny.objective(of)._replace(
            loss=replace(LOSSES["everything"], scores=way), positives=2
        )
        with jax.set_mesh(on):
            batch = put_batch(
                tiny.batch(16, 2, width=12, positives=2, change=doubled, **layout), on
            )
            run = jax.jit(jax.value_and_grad(partial(loss_and_accuracy, objective), has_aux=True))
            (value, _), gradient = run(trained, frozen, batch, None)
        found.append((float(value), jax.device_get(gradient)))
    assert_close(found[1], found[0])


@pytest.mark.parametrize("lora", [tiny.LORA, None], ids=["lora", "full"])
@pytest.mark.parametrize("sizes", MESHES, ids=str)
@pytest.mark.parametrize("chunks", CHUNKS)
def test_neither_packing_nor_mesh_nor_chunks_change_loss_or_gradients(padded, lora, sizes, chunks):
    assert_close(gradients(lora, sizes, chunks=chunks, **PACKED), padded(lora))


def test_keeping_activations_of_some_chunks_changes_nothing(padded):
    assert_close(gradients(tiny.LORA, (2, 2, 2), 5, chunks=8, **PACKED), padded(tiny.LORA))


def test_kept_chunks_written_one_after_the_other_change_nothing():
    # Some of the eight are empty, and three are encoded again, in a loop.
    assert_close(
        gradients(DROPOUT, (2, 2, 2), 5, chunks=8, **PACKED),
        gradients(DROPOUT, (2, 2, 2), 5, unrolled=True, chunks=8, **PACKED),
    )


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("remat", get_args(Remat))
def test_whatever_layers_keep_can_be_kept_of_all_chunks(padded, remat, sizes):
    # Without adapters, so that the embedding table too leaves something to be kept.
    assert_close(gradients(None, sizes, 4, remat=remat, chunks=4, **PACKED), padded(None))


@pytest.mark.parametrize(
    ("lora", "sizes"), [(DROPOUT, (2, 2, 2)), (None, (1, 1, 1))], ids=["lora", "full"]
)
def test_keeping_activations_on_the_host_changes_no_bit(lora, sizes):
    # Seven chunks are kept, some of them empty, and one is encoded again.
    (loss, found), (other, wanted) = (
        gradients(lora, sizes, 7, kept_on=on, chunks=8, **PACKED) for on in ("host", "device")
    )
    assert loss == other
    assert all(np.array_equal(found[name], value) for name, value in wanted.items())


def test_loss_is_that_of_the_examples_as_they_were_before_packing(padded):
    of, on, examples = tiny.made(SPEC), tiny.mesh(4, 2, 1), tiny.mixed(tiny.examples(16, 2, 12))
    with jax.set_mesh(on):
        batch = put_batch(tiny.batch(16, 2, 2, width=12, change=tiny.mixed, **PACKED), on)
        run = jax.jit(partial(encode, tiny.objective(of)))
        q, p = jax.device_get(run(*tiny.place(of, tiny.numbers(of), on), batch, None))
    there = np.array([place < len(one.passages) for one in examples for place in range(3)])
    assert 16 < there.sum() < 48
    assert not p[~there].any()
    temperatures, in_batch = (
        np.array([getattr(one, name) for one in examples]) for name in ("temperature", "in_batch")
    )
    texts = np.arange(16), np.where(there, 16 + np.arange(48), -1)
    (loss, _), _ = exact.infonce(q, p, BatchInfo(temperatures, in_batch, *texts))
    assert padded(tiny.LORA)[0] == pytest.approx(
        loss, rel=1e-5
    )  # scores of other programs, lifted by 1 / temperature


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_a_text_that_is_not_there_is_zero_and_moves_no_other(sizes):
    on = tiny.mesh(*sizes)
    vectors = (
        np.random.default_rng(0).standard_normal((2, 8, 3, 5)).astype(np.float32)
    )  # no place is empty
    places = np.array([[11, -1], [0, 11], [-1, -1], [5, 5]], np.int32)  # of 12 texts a shard
    with jax.set_mesh(on):
        spread = jax.device_put(vectors, NamedSharding(on, PartitionSpec(None, BATCH)))
        (at,) = tiny.rows(on, places)
        found, back = jax.vjp(lambda x: gather_text_vectors(x, at), spread)
        slope = jax.device_get(back(jnp.ones_like(found))[0])
    by_shard = vectors.reshape(2, 4, 2, 3, 5).swapaxes(0, 1).reshape(4, 12, 5)
    wanted = [
        by_shard[shard, place] if place >= 0 else np.zeros(5)
        for shard in range(4)
        for place in places[shard]
    ]
    np.testing.assert_array_equal(found, np.stack(wanted))
    counts = (
        np.array([np.bincount(own[own >= 0], minlength=12) for own in places])
        .reshape(4, 2, 2, 3)
        .swapaxes(0, 1)
    )
    np.testing.assert_array_equal(slope, np.broadcast_to(counts.reshape(2, 8, 3, 1), slope.shape))


def test_packing_leaves_chunks_empty():
    rows = np.any(
        tiny.batch(16, 2, 8, width=12, change=tiny.mixed, **PACKED).ends >= 0, axis=(1, 2)
    )
    assert list(rows) == sorted(rows, reverse=True)
    assert 3 < rows.sum() < 8  # else the tests above would show nothing about them


@pytest.mark.parametrize("lora", [tiny.LORA, None], ids=["lora", "full"])
def test_gradients_are_summed_over_copies_once_a_step_however_many_chunks_and_layers_there_are(
    lora,
):
    of, on = tiny.made(SPEC, lora), tiny.mesh(4, 1, 1)
    trained, frozen = tiny.place(of, tiny.numbers(of), on)
    with jax.set_mesh(on):
        batch = put_batch(tiny.batch(16, 2, 4, width=12, **PACKED), on)
        loss = partial(loss_and_accuracy, tiny.objective(of, kept_chunks=2))
        lowered = jax.jit(jax.grad(loss, has_aux=True)).lower(trained, frozen, batch, None)
        program = parse(lowered.compile().as_text())
    sums = [
        one
        for one in operations(program, 4)
        if any(each.kind == "all-reduce" for each in one.collectives)
    ]
    assert {one.times for one in sums} == {1}
    summed = sum(math.prod(shape) for shape in (value.shape for value in trained.values()))
    assert (
        sum(each.size for one in sums for each in one.collectives) >= 4 * summed
    )  # there is no other way for them to travel


@pytest.fixture(scope="module")
def dropped():
    return gradients(DROPOUT, (1, 1, 1), chunks=2, **PACKED)


@pytest.mark.parametrize("sizes", MESHES[1:], ids=str)
def test_the_mesh_does_not_change_what_dropout_drops(dropped, padded, sizes):
    assert_close(gradients(DROPOUT, sizes, chunks=2, **PACKED), dropped)
    assert dropped[0] != pytest.approx(padded(tiny.LORA)[0], rel=1e-3)


def training(lora: Lora | None, **optim: float) -> Training:
    return Training(
        tokens=Tokens(limit=12),
        model=Model(base="x", dtype="float32"),
        lora=lora,
        batch=Batch(queries=16, negatives=2, chunks=2, **PACKED),
        optim=Optim(**{"learning_rate": 1e-2, "warmup_steps": 0, "steps": 10} | optim),
    )


@pytest.mark.parametrize(
    ("platform", "dtype", "inside"),
    [
        ("cpu", "float32", True),
        ("cpu", "bfloat16", False),
        ("tpu", "float32", False),
        ("gpu", "float32", False),
    ],
)
def test_adapters_go_inside_kernels_only_where_products_keep_all_of_float32(
    platform, dtype, inside
):
    run = training(tiny.LORA)
    run.model.dtype = dtype
    assert {lora.inside for lora in build_step(run, SPEC, platform).model_def.lora.values()} == {
        inside
    }


def batches(on: jax.sharding.Mesh, count: int) -> list[Rows]:
    return [
        put_batch(tiny.batch(16, 2, 2, width=12, seed=seed, **PACKED), on) for seed in range(count)
    ]


def start(
    learner: TrainStep, on: jax.sharding.Mesh, values: dict[str, np.ndarray]
) -> tuple[states.State, dict[str, jax.Array]]:
    trained, frozen = tiny.place(learner.model_def, values, on)
    return states.fresh(trained, learner.optimiser, on), frozen


@pytest.fixture(scope="module", params=[tiny.LORA, None], ids=["lora", "full"])
def learner(request) -> TrainStep:
    """A learner whose step is compiled once for the tests below, on the mesh 2 × 2 × 2."""
    return build_step(training(request.param), SPEC, "cpu")


@pytest.fixture(scope="module")
def on() -> jax.sharding.Mesh:
    return tiny.mesh(2, 2, 2)


def update_by_hand(
    learner: TrainStep, parameters: dict, moments: optax.OptState, frozen: dict, batch: Rows
) -> tuple:
    """(parameters, moments, loss, accuracy, gradient norm)."""
    gradient_of = jax.value_and_grad(partial(loss_and_accuracy, learner.objective), has_aux=True)
    (loss, accuracy), gradient = gradient_of(parameters, frozen, batch, None)
    updates, moments = learner.optimiser.update(gradient, moments, parameters)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradient.values()))
    return optax.apply_updates(parameters, updates), moments, loss, accuracy, norm


def test_steps_equal_updates_by_hand(learner, on):
    made = learner.model_def
    values = tiny.numbers(made)
    with jax.set_mesh(on):
        state, frozen = start(learner, on, values)
        parameters = start(learner, on, values)[0].parameters
        moments = jax.jit(learner.optimiser.init)(parameters)
        by_hand = jax.jit(partial(update_by_hand, learner))
        for number, batch in enumerate(batches(on, 2)):
            state, metrics = learner.step(state, frozen, batch)
            jax.block_until_ready(
                state
            )  # two programs with collectives at once may starve eight devices on two cores
            parameters, moments, loss, accuracy, norm = jax.block_until_ready(
                by_hand(parameters, moments, frozen, batch)
            )
            # One program against two: float32 rounding. Adam divides by |g|, which lifts it where g is tiny.
            assert float(metrics.loss) == pytest.approx(float(loss), rel=1e-5)
            assert float(metrics.accuracy) == float(accuracy)
            assert float(metrics.gradient_norm) == pytest.approx(float(norm), rel=1e-4)
            assert float(metrics.learning_rate) == pytest.approx(1e-2 * (1 - number / 10))
            assert float(metrics.finite) == 1
            assert int(metrics.real_tokens) == int(np.sum(np.asarray(batch.segments) > 0))
            lengths = [
                len(text)
                for one in tiny.unpack(jax.device_get(batch))
                for text in (one.query, *one.passages)
            ]
            assert float(metrics.squared_lengths) == sum(length**2 for length in lengths)
            has_text = np.any(np.asarray(batch.ends) >= 0, axis=(1, 2))
            assert int(metrics.computed_tokens) == np.sum(has_text) * batch.tokens[0].size
    assert int(state.step) == 2
    for name, value in parameters.items():
        moved = np.linalg.norm(np.asarray(value) - values[name])
        assert moved > 0
        assert (
            np.linalg.norm(np.asarray(state.parameters[name]) - np.asarray(value)) <= 1e-3 * moved
        ), name


def test_moments_are_float32_and_lie_where_their_parameters_lie(learner, on):
    with jax.set_mesh(on):
        state, frozen = start(learner, on, tiny.numbers(learner.model_def))
        fresh = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), state)
        state, _ = learner.step(state, frozen, *batches(on, 1))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), state) == fresh
    adam = next(
        leaf
        for leaf in jax.tree.leaves(state.moments, is_leaf=lambda x: hasattr(x, "mu"))
        if hasattr(leaf, "mu")
    )
    for moment in (adam.mu, adam.nu):
        assert set(moment) == set(learner.model_def.trained)
        for name, value in moment.items():
            assert value.dtype == jnp.float32
            assert value.sharding == state.parameters[name].sharding
    kernel = next(name for name in adam.mu if name.endswith(("q/kernel", "q/lora_a")))
    assert len({str(shard.index) for shard in adam.mu[kernel].addressable_shards}) > 1


def test_abstract_arguments_are_those_of_the_real_step(learner, on):
    with jax.set_mesh(on):
        state, frozen = start(learner, on, tiny.numbers(learner.model_def))
        (batch,) = batches(on, 1)
    lora = tiny.LORA if learner.model_def.lora else None
    for real, abstract in zip(
        (state, frozen, batch), abstract_arguments(training(lora), learner, on), strict=True
    ):
        described = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), real
        )
        assert described == abstract


def test_a_step_compiles_once(learner, on):
    with jax.set_mesh(on):
        state, frozen = start(learner, on, tiny.numbers(learner.model_def))
        for batch in batches(on, 3):
            state, _ = learner.step(state, frozen, batch)
    assert learner.step._cache_size() == 1


def test_the_old_state_is_donated(learner, on):
    with jax.set_mesh(on):
        old, frozen = start(learner, on, tiny.numbers(learner.model_def))
        learner.step(old, frozen, *batches(on, 1))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.parameters))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(frozen))


@pytest.mark.parametrize("harm", [np.nan, np.inf, 0.0])
def test_a_batch_that_gives_no_number_is_skipped(learner, on, harm):
    """Through the one number of a query that is not a token: its temperature."""
    with jax.set_mesh(on):
        state, frozen = start(learner, on, tiny.numbers(learner.model_def))
        before = jax.device_get(state)
        whole = tiny.batch(16, 2, 2, width=12, **PACKED)
        temperatures = whole.temperatures.copy()
        temperatures[3, 1] = harm
        for skipped in (1, 2):
            state, metrics = learner.step(
                state, frozen, put_batch(whole._replace(temperatures=temperatures), on)
            )
            found = jax.device_get(metrics)
            # A query divided by infinity is equally near to all: that is a number.
            assert bool(found.finite) == (harm == np.inf)
            if harm != np.inf:
                assert_untouched(state, before, skipped)
        assert int(found.skipped) == int(found.in_a_row) == 2 * (harm != np.inf)


def on_one_device(value: jax.Array, number: int, harm: float) -> jax.Array:
    """The array with another first number in the copy that one device holds."""
    copies = [shard.data for shard in value.addressable_shards]
    device = copies[number].device
    broken = np.array(copies[number])
    broken.flat[0] = harm
    copies[number] = jax.device_put(broken, device)
    return jax.make_array_from_single_device_arrays(value.shape, value.sharding, copies)


@pytest.mark.parametrize("number", [0, 5])
@pytest.mark.parametrize("leaf", ["norm/scale", "layers/attention/o/kernel"])
def test_what_only_one_device_has_wrong_stops_the_update_on_all(learner, on, leaf, number):
    values = tiny.numbers(learner.model_def)
    with jax.set_mesh(on):
        state, frozen = start(learner, on, values)
        holder = frozen if leaf in frozen else state.parameters
        holder[leaf] = on_one_device(holder[leaf], number, np.nan)
        before = [
            [np.array(shard.data) for shard in one.addressable_shards]
            for one in jax.tree.leaves(state._replace(watch=()))
        ]
        state, metrics = learner.step(state, frozen, *batches(on, 1))
    assert float(metrics.finite) == 0
    for value in state.watch[:2]:
        assert [int(shard.data) for shard in value.addressable_shards] == [1] * 8
    for one, copies in zip(jax.tree.leaves(state._replace(watch=())), before, strict=True):
        for shard, copy in zip(one.addressable_shards, copies, strict=True):
            assert np.array(shard.data).tobytes() == copy.tobytes()


@pytest.mark.parametrize("learner", [tiny.LORA], indirect=True, ids=["lora"])
def test_the_guard_changes_no_bit_of_a_run_that_is_finite(learner, on, monkeypatch):
    states_after = []
    for guarded in (True, False):
        if not guarded:
            monkeypatch.setattr(
                steps, "should_apply", lambda _, watch, *__: (True, jnp.ones((), bool), watch)
            )
            learner = build_step(training(tiny.LORA), SPEC, "cpu")
        with jax.set_mesh(on):
            state, frozen = start(learner, on, tiny.numbers(learner.model_def))
            lowered = learner.step.lower(state, frozen, *batches(on, 1))
            step = lowered.compile(
                {"xla_cpu_use_fusion_emitters": True}
            )  # as users have it: the other one rounds by what is fused
            for batch in batches(on, 2):
                state, _ = step(state, frozen, batch)
        states_after.append(jax.device_get(state._replace(watch=())))
    for guarded, plain in zip(*map(jax.tree.leaves, states_after), strict=True):
        assert guarded.tobytes() == plain.tobytes()


def empty(examples: list[Ids]) -> list[Ids]:
    """Nothing but the two tokens that begin and end a text: all texts are alike, too."""
    return [one._replace(query=[1, 2], passages=[[1, 2] for _ in one.passages]) for one in examples]


def one_passage(examples: list[Ids]) -> list[Ids]:
    """The same passage everywhere, positives and negatives."""
    return [
        one._replace(passages=[examples[0].passages[0]] * len(one.passages)) for one in examples
    ]


def no_direction(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every vector is zero."""
    return {**values, "norm/scale": 0 * values["norm/scale"]}


@pytest.mark.parametrize(
    ("change", "harm", "loss"),
    [
        (empty, dict, np.log(48)),  # 16 positives and 32 negatives, all equally near
        (one_passage, dict, np.log(48)),
        (tiny.mixed, no_direction, None),
    ],
    ids=["empty texts", "one passage", "zero vectors"],
)
def test_what_tells_nothing_is_a_number_all_the_same(learner, on, change, harm, loss):
    with jax.set_mesh(on):
        state, frozen = start(learner, on, harm(tiny.numbers(learner.model_def)))
        batch = tiny.batch(16, 2, 2, width=12, change=change, **PACKED)
        state, metrics = learner.step(state, frozen, put_batch(batch, on))
    found = jax.device_get(metrics)
    assert int(found.in_a_row) == 0
    assert np.isfinite(found.loss)
    if loss is not None:
        assert np.any(np.all(batch.segments == 0, axis=-1))  # rows in which all is masked
        assert float(found.loss) == pytest.approx(loss, rel=1e-5)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(jax.device_get(state)))


@pytest.mark.parametrize("harm", [np.nan, np.inf])
def test_a_step_that_is_not_finite_leaves_the_state_as_it_was(learner, on, harm):
    values = tiny.numbers(learner.model_def)
    with jax.set_mesh(on):
        state, frozen = start(learner, on, values)
        first, second = batches(on, 2)
        state, good = learner.step(state, frozen, first)  # moments and step are no longer zero
        assert float(good.finite) == 1
        name = next(name for name in state.parameters if name.endswith(("v/kernel", "v/lora_b")))
        harmed = np.array(state.parameters[name])
        harmed[0, 0, 0] = harm
        harmed = jax.device_put(harmed, state.parameters[name].sharding)
        state = state._replace(parameters={**state.parameters, name: harmed})
        before = jax.device_get(state)
        state, metrics = learner.step(state, frozen, second)
    assert float(metrics.finite) == 0
    assert_untouched(state, before, skipped=1)


def assert_untouched(state: states.State, before: states.State, skipped: int) -> None:
    """All but the guard's counters has the bits that it had."""
    assert (int(state.watch.skipped), int(state.watch.in_a_row)) == (skipped, skipped)
    after = jax.device_get(state)._replace(watch=before.watch)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert old.tobytes() == new.tobytes()


@pytest.mark.parametrize(
    "slope",
    [
        lambda x: 1e30 * x,  # loss and gradient are float32, the squared norm is not
        jnp.sqrt,  # of 0, where it is infinite
    ],
    ids=["overflows", "infinite"],
)
def test_a_gradient_that_is_not_finite_leaves_the_state_as_it_was_whatever_the_loss(
    slope, monkeypatch
):
    def steep(_: object, trained: dict, *__: object) -> tuple[jax.Array, jax.Array]:
        return sum(
            jnp.sum(slope(x - jax.lax.stop_gradient(x))) for x in trained.values()
        ), jnp.zeros(())

    monkeypatch.setattr(steps, "loss_and_accuracy", steep)
    on, learner = tiny.mesh(1, 1, 1), build_step(training(tiny.LORA), SPEC, "cpu")
    with jax.set_mesh(on):
        state, frozen = start(learner, on, tiny.numbers(learner.model_def))
        before = jax.device_get(state)
        state, metrics = learner.step(state, frozen, *batches(on, 1))
    assert np.isfinite(metrics.loss)
    assert float(metrics.finite) == 0
    assert_untouched(state, before, skipped=1)


def test_dropout_depends_on_the_step_and_the_seed_and_on_nothing_else():
    on = tiny.mesh(1, 1, 1)
    losses = {}
    for seed in (0, 1):
        run = training(DROPOUT)
        run.seed = seed
        learner = build_step(run, SPEC, "cpu")
        values = tiny.numbers(learner.model_def)
        with jax.set_mesh(on):
            (batch,) = batches(on, 1)
            for step in (0, 0, 1):
                state, frozen = start(learner, on, values)
                _, metrics = learner.step(
                    state._replace(step=jnp.asarray(step, jnp.int32)), frozen, batch
                )
                losses.setdefault((seed, step), []).append(float(metrics.loss))
    assert all(len(set(found)) == 1 for found in losses.values())
    assert len({found[0] for found in losses.values()}) == 4


@pytest.mark.parametrize("scores", ["chunked", "ring"])
def test_the_way_of_scoring_changes_neither_loss_nor_gradients(padded, scores):
    assert_close(
        gradients(tiny.LORA, (2, 2, 2), scores=scores, chunks=2, **PACKED), padded(tiny.LORA)
    )


def test_every_chunk_and_layer_drops_by_a_seed_of_its_own(monkeypatch):
    used = []

    def note(x: jax.Array, _rate: float, seed: jax.Array, map_number: int) -> jax.Array:
        jax.debug.callback(lambda value: used.append((map_number, int(value))), seed)
        return x

    monkeypatch.setattr(dense, "dropout", note)
    of, on = tiny.made(SPEC, DROPOUT), tiny.mesh(1, 1, 1)
    trained, frozen = tiny.place(of, tiny.numbers(of), on)
    with jax.set_mesh(on):
        run = jax.jit(partial(loss_and_accuracy, tiny.objective(of)))
        run(trained, frozen, put_batch(tiny.batch(8, 1, 4, width=12), on), jax.random.key(0))
        jax.effects_barrier()
    assert len(set(used)) == len(used) == 4 * SPEC.layers * len(of.lora)
    assert len({seed for _, seed in used}) == 4 * SPEC.layers
