"""FLOPs of single instructions: products and convolutions, a multiplication and an addition each."""

import math
import re

import numpy as np

from e5jax.model.splash import block_size
from e5jax.plan.hlo import Computation, Instruction

# Products of each kernel of splash attention: scores and mixing; scores again and two for q; scores again and three for k and v.
SPLASH = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


def flops(made: Instruction, where: Computation) -> float:
    """Of one run; 0 for whatever is neither a product nor a convolution. A kernel counts what it says of itself."""
    if made.opcode == "dot":
        left = where.operands(made)[0].shapes[0]
        contracted = re.findall(r"\d+", made.attributes.get("lhs_contracting_dims", ""))
        return 2.0 * made.shapes[0].size * math.prod(left.dims[int(dim)] for dim in contracted)
    if made.opcode == "convolution":
        return _convolution(made, where)
    if made.opcode == "custom-call":
        # Pallas kernels carry their author's estimate.
        said = re.search(
            r'"cost_estimate":\{[^}]*"flops":"?(\d+)', made.attributes.get("backend_config", "")
        )
        return float(said[1]) if said else _splash(made, where)
    return 0.0


def _splash(made: Instruction, where: Computation) -> float:
    """Splash attention says nothing of itself: its products over the blocks of a causal mask, a window not taken into account."""
    times = next((count for name, count in SPLASH.items() if made.name.startswith(name)), 0)
    if not times:
        return 0.0
    # The first that is no mask and no table of blocks: [n h t e], without n where a device has one row.
    q = next(
        one.shapes[0]
        for one in where.operands(made)
        if len(one.shapes[0].dims) > 2 and "f" in one.shapes[0].dtype
    )
    length = q.dims[-2]
    blocks = length // block_size(length)
    return times * 2.0 * q.size * length * (blocks + 1) / (2 * blocks)


def _convolution(made: Instruction, where: Computation) -> float:
    """Output features × input features of the kernel × batch × the places where kernel and input really meet.

    The TPU compiler writes products as convolutions, a batch dimension as a spatial one whose dilation and stride let
    each kernel element meet one input element only.
    """
    source, kernel = (operand.shapes[0].dims for operand in where.operands(made))
    labels = re.match(r"(\w+)_(\w+)->(\w+)", made.attributes["dim_labels"])
    assert labels is not None, "a convolution has dim_labels"
    of_source, of_kernel, of_result = labels.groups()
    result = made.shapes[0].dims
    meetings = 1
    window = dict(
        part.split("=") for part in made.attributes.get("window", "{}").strip("{}").split()
    )
    for number, label in enumerate(sorted(label for label in of_result if label.isdigit())):
        meetings *= _meetings(
            source[of_source.index(label)],
            kernel[of_kernel.index(label)],
            result[of_result.index(label)],
            window,
            number,
        )
    across = (
        result[of_result.index("b")] * result[of_result.index("f")] * kernel[of_kernel.index("i")]
    )
    return 2.0 * across * meetings


def _meetings(source: int, kernel: int, result: int, window: dict[str, str], number: int) -> int:
    """Pairs (result, kernel element) along one dimension that fall on an input element, not on padding or a gap."""

    def setting(name: str, default: str) -> str:
        return window[name].split("x")[number] if name in window else default

    stride, gap, spread = (
        int(setting(name, "1")) for name in ("stride", "lhs_dilate", "rhs_dilate")
    )
    low = int(setting("pad", "0_0").split("_")[0])
    place = np.arange(result)[:, None] * stride + np.arange(kernel)[None] * spread - low
    return int(np.sum((place >= 0) & (place < (source - 1) * gap + 1) & (place % gap == 0)))
