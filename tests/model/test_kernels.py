"""Every attention kernel against the same numbers; the GPU's and the TPU's as far as a CPU can say."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from e5jax.data.packing import SHARED
from e5jax.mesh import BATCH
from e5jax.model import splash
from e5jax.model.decoder import FUSED
from e5jax.model.kernels import HEADS, attend, choose
from e5jax.model.model_def import model_def
from tests import tiny

ROOT = Path(__file__).parents[2]


def packed(rows: int, length: int, mean: float, seed: int = 0) -> np.ndarray:
    """Segment ids `[n t]`: texts of about `mean` tokens one behind the other; some rows end in padding, one has nothing else."""
    random = np.random.default_rng(seed)
    segments = np.zeros((rows, length), np.int32)
    for row in segments[: max(rows - 1, 1)]:
        ends = np.cumsum(random.integers(1, max(int(2 * mean), 2), length))
        used = length - int(random.integers(0, length // 4 + 1))
        row[:used] = 1 + np.searchsorted(ends, np.arange(used), side="right")
    return segments


def tensors(
    segments: np.ndarray, heads: int, kv_heads: int, size: int, dtype: str = "float32"
) -> list[np.ndarray]:
    """Random q, k, v and a slope of the output."""
    random = np.random.default_rng(1)
    return [
        random.standard_normal((*segments.shape, count, size)).astype(dtype)
        for count in (heads, kv_heads, kv_heads, heads)
    ]


def run(
    kernel,
    arrays: list[np.ndarray],
    segments: np.ndarray,
    window: int | None,
    on: Mesh,
    shared: int = 0,
    causal: bool = True,
) -> list[np.ndarray]:
    """Output and the gradients of q, k, v; `kernel` is a name, or a function of one device."""

    def objective(q, k, v, slope, segments):
        if isinstance(kernel, str):
            out = attend(q, k, v, segments, window, kernel, shared, causal)
        else:
            local = partial(kernel, window=window)
            specs = (HEADS, HEADS, HEADS, PartitionSpec(BATCH, None))
            out = jax.shard_map(local, in_specs=specs, out_specs=HEADS, check_vma=False)(
                q, k, v, segments
            )
        return jnp.sum(out.astype(jnp.float32) * slope), out

    with jax.set_mesh(on):
        placed = [jax.device_put(x, NamedSharding(on, HEADS)) for x in arrays]
        ids = jax.device_put(segments, NamedSharding(on, PartitionSpec(BATCH, None)))
        step = jax.jit(jax.value_and_grad(objective, argnums=(0, 1, 2), has_aux=True))
        (_, out), gradients = step(*placed, ids)
    return [np.asarray(x, np.float32) for x in (out, *gradients)]


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    # At least 1: a token that sees itself alone has gradients of zero, up to rounding.
    return float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), 1.0))


CASES = {
    "one token": (2, 1, 4, 2, 8, None, 1),
    "less than a block": (4, 7, 4, 2, 8, None, 3),
    "one block": (2, 32, 4, 4, 8, None, 9),
    "not whole blocks": (4, 77, 6, 2, 16, None, 20),
    "one key head": (2, 40, 4, 1, 8, None, 15),
    "one text over several blocks": (2, 130, 4, 2, 8, None, 1_000),
    "window below a block": (4, 150, 4, 2, 8, 5, 60),
    "window of one": (2, 70, 4, 2, 8, 1, 30),
    "window over blocks": (4, 200, 4, 2, 8, 70, 120),
    "window of a block": (2, 96, 4, 2, 8, 32, 96),
    "large blocks": (1, 1_100, 2, 1, 8, 300, 200),
}


BOTH_WAYS = (
    "not whole blocks",
    "one text over several blocks",
    "window below a block",
    "window over blocks",
    "window of a block",
)


@pytest.mark.parametrize(
    ("name", "causal"), [*((name, True) for name in CASES), *((name, False) for name in BOTH_WAYS)]
)
def test_blockwise_equals_xla_in_value_and_gradient(name, causal):
    rows, length, heads, kv_heads, size, window, mean = CASES[name]
    segments = packed(rows, length, mean)
    arrays = tensors(segments, heads, kv_heads, size)
    on = tiny.mesh(1, 1, 1)
    wanted, found = (
        run(kernel, arrays, segments, window, on, causal=causal) for kernel in ("xla", "blockwise")
    )
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) <= 1e-5  # float32, summed in another order


@pytest.mark.parametrize(
    ("causal", "window", "before", "after"),
    [(True, 3, 2, 0), (False, 3, 3, 3), (False, None, 12, 12)],
)
def test_xla_equals_a_softmax_written_out(causal, window, before, after):
    segments = packed(2, 12, 4)
    arrays = tensors(segments, 4, 2, 8)
    found = run("xla", arrays, segments, window, tiny.mesh(1, 1, 1), causal=causal)[0]
    q, k, v, _ = (x.astype(np.float64) for x in arrays)
    for n, t, h in np.ndindex(*segments.shape, 4):
        seen = [
            s for s in range(12) if -after <= t - s <= before and segments[n, s] == segments[n, t]
        ]
        weights = np.exp([q[n, t, h] @ k[n, s, h // 2] / np.sqrt(8) for s in seen])
        assert np.abs(weights @ v[n, seen, h // 2] / weights.sum() - found[n, t, h]).max() <= 1e-5


def with_shared(segments: np.ndarray, shared: int) -> np.ndarray:
    """The same rows, longer: with tokens before them that all texts see."""
    return np.concatenate([np.full((len(segments), shared), SHARED, np.int32), segments], axis=1)


@pytest.mark.parametrize("kernel", ["xla", "blockwise"])
def test_what_a_row_shares_is_seen_by_each_of_its_texts_as_if_it_were_its_own(kernel):
    shared, segments = 5, packed(2, 40, 9)
    arrays = tensors(with_shared(segments, shared), 4, 2, 8)
    found = run(kernel, arrays, with_shared(segments, shared), None, tiny.mesh(1, 1, 1), shared)[0]
    for row, text in {(row, text) for row, texts in enumerate(segments) for text in texts if text}:
        own = np.concatenate([np.arange(shared), shared + np.flatnonzero(segments[row] == text)])
        alone = run(
            "xla",
            [x[row : row + 1, own] for x in arrays],
            np.ones((1, len(own)), np.int32),
            None,
            tiny.mesh(1, 1, 1),
        )[0]
        assert relative(found[row, own], alone[0]) <= 1e-6


@pytest.mark.parametrize(
    ("shared", "length", "window"),
    [(1, 40, None), (32, 100, None), (40, 200, 260), (70, 300, None)],
)
def test_blockwise_with_something_shared_equals_xla_in_value_and_gradient(shared, length, window):
    segments = with_shared(packed(2, length, 12), shared)
    arrays = tensors(segments, 4, 2, 8)
    wanted, found = (
        run(kernel, arrays, segments, window, tiny.mesh(1, 1, 1), shared)
        for kernel in ("xla", "blockwise")
    )
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) <= 1e-5


@pytest.mark.parametrize("window", [None, 20])
def test_blockwise_on_eight_devices_equals_xla_on_one(window):
    segments = packed(8, 75, 25)
    arrays = tensors(segments, 6, 2, 16)
    wanted = run("xla", arrays, segments, window, tiny.mesh(1, 1, 1))
    found = run("blockwise", arrays, segments, window, tiny.mesh(2, 2, 2))
    for a, b in zip(found, wanted, strict=True):
        assert relative(a, b) <= 1e-5


def test_blockwise_in_bfloat16_rounds_like_xla():
    segments = packed(2, 100, 40)
    exact = tensors(segments, 4, 2, 16)
    wanted = run("xla", exact, segments, None, tiny.mesh(1, 1, 1))
    narrow = [x.astype(jnp.bfloat16) for x in exact[:3]] + exact[3:]
    found, like = (
        run(name, narrow, segments, None, tiny.mesh(1, 1, 1)) for name in ("blockwise", "xla")
    )
    for a, b, c in zip(found, like, wanted, strict=True):
        # 8 bits: each rounding adds about 0.2 %. What matters is that the kernels err alike.
        assert relative(a, c) <= max(1.5 * relative(b, c), 5e-3)


@pytest.mark.parametrize(
    "kernel",
    ["xla", "blockwise", partial(splash.attend, interpret=True)],
    ids=["xla", "blockwise", "splash"],
)
def test_gradient_between_texts_and_from_the_future_is_exactly_zero(kernel):
    segments = np.repeat([[1, 2, 3]], [50, 30, 48], axis=1).astype(np.int32)
    arrays = tensors(segments, 2, 1, 8)
    for place, own in ((20, slice(0, 21)), (70, slice(50, 71)), (127, slice(80, 128))):
        slope = np.zeros_like(arrays[3])
        slope[0, place] = arrays[3][0, place]
        _, _, *gradients = run(kernel, [*arrays[:3], slope], segments, None, tiny.mesh(1, 1, 1))
        for gradient in gradients:
            norms = np.linalg.norm(gradient[0, :, 0], axis=-1)
            assert (norms[own] > 0).all()
            assert np.delete(norms, np.arange(128)[own]).max() == 0


def test_blockwise_memory_grows_linearly():
    on = tiny.mesh(1, 1, 1)
    with jax.set_mesh(on):

        def total(q, k, v, segments):
            return jnp.sum(attend(q, k, v, segments, None, "blockwise"))

        def bytes_of(length: int) -> int:
            rows = NamedSharding(on, PartitionSpec(BATCH, None))
            shapes = [
                jax.ShapeDtypeStruct(
                    (1, length, n, 16), jnp.float32, sharding=NamedSharding(on, HEADS)
                )
                for n in (4, 2, 2)
            ]
            ids = jax.ShapeDtypeStruct((1, length), jnp.int32, sharding=rows)
            return (
                jax.jit(jax.grad(total))
                .lower(*shapes, ids)
                .compile()
                .memory_analysis()
                .temp_size_in_bytes
            )

        assert 1.8 < bytes_of(8_192) / bytes_of(4_096) < 2.2


def test_kernels_run_inside_scan_and_checkpoint():
    on, ids = tiny.mesh(1, 1, 1), packed(2, 40, 15)
    q, k, v, slope = (jax.device_put(x, NamedSharding(on, HEADS)) for x in tensors(ids, 4, 2, 8))
    segments = jax.device_put(ids, NamedSharding(on, PartitionSpec(BATCH, None)))

    def layers(kernel: str, policy) -> np.ndarray:
        def layer(x, _):
            return x + attend(x, k, v, segments, None, kernel), None

        def loss(x):
            x, _ = jax.lax.scan(jax.checkpoint(layer, policy=policy), x, None, length=3)
            return jnp.sum(x * slope)

        with jax.set_mesh(on):
            return np.asarray(jax.jit(jax.grad(loss))(q))

    wanted = layers("xla", jax.checkpoint_policies.everything_saveable)
    assert relative(layers("blockwise", jax.checkpoint_policies.nothing_saveable), wanted) <= 1e-5


# --- TPU -------------------------------------------------------------------------------------------------------


def splash_alone(q, k, v, segments, window, causal):
    """With the window as `attend` gives it."""
    return splash.attend(
        q,
        k,
        v,
        segments,
        window if causal or window is None else window + 1,
        causal=causal,
        interpret=True,
    )


@pytest.mark.parametrize(
    ("length", "window", "causal"),
    [(128, None, True), (256, None, True), (256, 20, True), (256, None, False), (256, 20, False)],
)
def test_splash_interpreted_equals_xla_at_real_tokens(length, window, causal):
    segments = packed(2, length, 50)[:1]
    arrays = tensors(segments, 4, 2, 16)
    arrays[3] = arrays[3] * (segments > 0)[..., None, None]  # padding hears nothing back
    wanted = run("xla", arrays, segments, window, tiny.mesh(1, 1, 1), causal=causal)
    found = run(partial(splash_alone, causal=causal), arrays, segments, window, tiny.mesh(1, 1, 1))
    for a, b in zip(found, wanted, strict=True):
        assert relative(a[segments > 0], b[segments > 0]) <= 1e-5


def test_splash_with_heads_over_two_devices_equals_xla():
    segments = packed(3, 128, 50)[:2]
    arrays = tensors(segments, 4, 2, 16)
    wanted = run("xla", arrays, segments, None, tiny.mesh(1, 1, 1))[0]
    found = run(partial(splash.attend, interpret=True), arrays, segments, None, tiny.mesh(1, 2, 2))[
        0
    ]
    assert relative(found[segments > 0], wanted[segments > 0]) <= 1e-5


COMPILE = """
import json
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec
from e5jax.config import Mesh
from e5jax.mesh import BATCH, make_mesh
from e5jax.model.kernels import HEADS, attend

mesh = make_mesh(Mesh(1, -1, 1), topologies.get_topology_desc(platform="tpu", topology_name="v5e:4x4").devices)

def total(q, k, v, segments):
    return jnp.sum(attend(q, k, v, segments, None, "splash").astype(jnp.float32))

def temporary(length):
    def shaped(dtype, spec, *rest):
        return jax.ShapeDtypeStruct((16, length, *rest), dtype, sharding=NamedSharding(mesh, spec))
    q, k = (shaped(jnp.bfloat16, HEADS, heads, 128) for heads in (32, 8))
    with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(q, k, k, shaped(jnp.int32, PartitionSpec(BATCH, None)))
        return step.compile().memory_analysis().temp_size_in_bytes

print(json.dumps([temporary(length) for length in (16_384, 32_768)]))
"""


def test_splash_compiles_for_a_tpu_slice_with_memory_linear_in_the_row():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, timeout=600, stdout=subprocess.PIPE
    )
    half, whole = json.loads(done.stdout.decode().splitlines()[-1])
    assert whole / half < 2.2
    assert whole < 2 * 2**30  # the scores of one head alone would be 4 GiB


# --- GPU -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretend_cudnn(monkeypatch):
    """jax asks the installed cuDNN for its version before it traces; lowering itself needs no GPU."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)


@pytest.mark.usefixtures("pretend_cudnn")
@pytest.mark.parametrize("window", [None, 16])
def test_cudnn_lowers_to_the_fused_kernel_forward_and_backward_on_every_mesh_axis(window):
    with jax.set_mesh(tiny.mesh(2, 2, 2)):
        q = jnp.zeros((8, 64, 4, 64), jnp.bfloat16, out_sharding=HEADS)
        k = jnp.zeros((8, 64, 2, 64), jnp.bfloat16, out_sharding=HEADS)
        segments = jnp.ones((8, 64), jnp.int32, out_sharding=PartitionSpec(BATCH, None))

        def total(q, k, v, segments):
            return jnp.sum(attend(q, k, v, segments, window, "cudnn").astype(jnp.float32))

        traced = jax.jit(jax.grad(total)).trace(q, k, k, segments)
        lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    # The mask goes in as a bias.
    assert "__cudnn$fmhaScaleBiasSoftmax" in lowered
    assert "__cudnn$fmhaScaleBiasSoftmaxBackward" in lowered


@pytest.mark.usefixtures("pretend_cudnn")
@pytest.mark.parametrize(("remat", "times"), [("projections", 2), ("attention", 1)])
def test_what_cudnn_returns_is_computed_again_only_where_attention_is_not_kept(remat, times):
    of = model_def(tiny.SPEC, tiny.LORA, dtype="bfloat16", remat=remat, kernel="cudnn")
    on = tiny.mesh(1, 1, 1)
    with jax.set_mesh(on):
        trained, frozen = (of.abstract(names, on, "bfloat16") for names in (of.trained, of.frozen))
        (tokens,) = tiny.rows(on, np.ones((2, 16), np.int32))

        def total(trained, frozen):
            return jnp.sum(
                of.decoder({**trained, **frozen})(tokens, tokens, tokens).astype(jnp.float32)
            )

        program = str(jax.jit(jax.grad(total)).trace(trained, frozen).jaxpr)
    assert program.count(FUSED) == times


# --- the choice ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "dtype", "length", "chosen"),
    [
        ("tpu", "bfloat16", 512, "xla"),
        ("tpu", "bfloat16", 1_024, "xla"),
        ("tpu", "bfloat16", 2_048, "splash"),
        ("tpu", "float32", 1_152, "splash"),
        ("tpu", "bfloat16", 500, "xla"),
        ("tpu", "bfloat16", 5_000, "blockwise"),
        ("gpu", "bfloat16", 512, "cudnn"),
        ("gpu", "bfloat16", 513, "xla"),
        ("gpu", "float32", 512, "xla"),
        ("gpu", "float32", 4_096, "blockwise"),
        ("cpu", "float32", 31, "xla"),
        ("cpu", "float32", 32, "blockwise"),
        ("cpu", "bfloat16", 512, "blockwise"),
        ("cpu", "float32", 4_096, "blockwise"),
        ("rocm", "float32", 2_048, "xla"),
        ("rocm", "float32", 2_049, "blockwise"),
    ],
)
def test_auto_fits_the_platform(platform, dtype, length, chosen):
    assert choose("auto", platform, dtype, length) == chosen


@pytest.mark.parametrize("kernel", ["xla", "blockwise", "cudnn", "splash"])
def test_a_named_kernel_is_not_replaced(kernel):
    assert choose(kernel, "cpu", "float32", 77) == kernel
