"""What only a GPU can say: `E5JAX_GPU=1 pytest tests/test_gpu.py` on a machine that has one; the reference is its CPU."""

import os
from dataclasses import replace

import jax
import numpy as np
import pytest

from e5jax.config import Mesh
from e5jax.data.packing import SHARED
from e5jax.mesh import make_mesh
from e5jax.train.build import build_step
from tests import tiny
from tests.model.test_kernels import packed, relative, run, tensors
from tests.train.test_step import batches, start, training

pytestmark = pytest.mark.skipif(
    "E5JAX_GPU" not in os.environ, reason="asked for by E5JAX_GPU=1: it needs a GPU"
)

LENGTH = 192


def device(platform: str) -> jax.sharding.Mesh:
    return make_mesh(Mesh(1, 1, 1), jax.devices(platform)[:1])


@pytest.mark.parametrize(
    ("window", "shared", "causal"),
    [
        (None, 0, True),
        (70, 0, True),
        (None, 16, True),
        (40, 16, True),
        (None, 0, False),
        (70, 0, False),
    ],
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(8, 2, 128), (6, 2, 64), (4, 4, 16)])
def test_cudnn_computes_what_plain_attention_does(window, shared, causal, heads, kv_heads, size):
    segments = packed(4, LENGTH, 30)
    segments[:, :shared] = SHARED
    arrays = tensors(segments, heads, kv_heads, size)
    wanted = run("xla", arrays, segments, window, device("cpu"), shared, causal)
    half = [x.astype(jax.numpy.bfloat16) for x in arrays]
    for found, number in zip(
        run("cudnn", half, segments, window, device("gpu"), shared, causal), wanted, strict=True
    ):
        assert relative(found, number) < 1e-2


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-3), ("bfloat16", 2e-2)])
def test_a_step_gives_the_loss_and_gradient_of_the_cpu(dtype, most):
    said = {}
    for platform in ("cpu", "gpu"):
        run_ = training(tiny.LORA)
        run_.model = replace(run_.model, dtype=dtype if platform == "gpu" else "float32")
        learner, on = build_step(run_, tiny.SPEC, platform), device(platform)
        with (
            jax.set_mesh(on),
            jax.default_matmul_precision("highest" if dtype == "float32" else "default"),
        ):
            state, frozen = start(learner, on, tiny.numbers(learner.model_def))
            for batch in batches(on, 2):
                state, metrics = learner.step(state, frozen, batch)
                said.setdefault(platform, []).append(
                    (float(metrics.loss), float(metrics.gradient_norm))
                )
    np.testing.assert_allclose(said["gpu"], said["cpu"], rtol=most)
