"""The fused GPU kernel: what can be said of it without a GPU. `test_decoder.py` has the numbers of the XLA path."""

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo
from jax.sharding import PartitionSpec

from e5jax.mesh import BATCH
from e5jax.model.attention import attend
from tests import tiny


@pytest.fixture
def pretend_cudnn(monkeypatch):
    """jax asks the installed cuDNN for its version before it traces; lowering itself needs no GPU."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)


@pytest.mark.usefixtures("pretend_cudnn")
def test_cudnn_lowers_to_the_fused_kernel_forward_and_backward_on_every_mesh_axis():
    with jax.set_mesh(tiny.mesh(2, 2, 2)):
        heads = PartitionSpec(BATCH, None, "tensor", None)
        q = jnp.zeros((8, 64, 4, 64), jnp.bfloat16, out_sharding=heads)
        k = jnp.zeros((8, 64, 2, 64), jnp.bfloat16, out_sharding=heads)
        segments = jnp.ones((8, 64), jnp.int32, out_sharding=PartitionSpec(BATCH, None))

        def total(q, k, v):
            return jnp.sum(attend(q, k, v, segments, None, "cudnn").astype(jnp.float32))

        lowered = jax.jit(jax.grad(total)).trace(q, k, k).lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax" in lowered
    assert "__cudnn$fmhaSoftmaxBackward" in lowered
