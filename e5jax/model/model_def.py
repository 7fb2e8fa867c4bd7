"""A decoder without its numbers: the names, shapes and axes of its parameters, and how to put numbers in.

Parameters travel as flat dictionaries `{"layers/attention/q/kernel": array}`: plain pytrees for jit, optax and
checkpoints. NNX defines the modules and nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
from flax import nnx

from e5jax.config import TARGETS, Quantisation, Remat
from e5jax.config import Lora as LoraConfig
from e5jax.errors import ConfigError
from e5jax.mesh import sharding
from e5jax.model.decoder import Decoder
from e5jax.model.dense import Dense, Lora
from e5jax.model.kernels import Concrete
from e5jax.model.spec import Spec
from e5jax.model.variables import Adapter, Axes, Quantised

Parameters = dict[str, jax.Array]
Abstract = dict[str, jax.ShapeDtypeStruct]  # their shapes, dtypes and placement


class Leaf(NamedTuple):
    """One parameter."""

    shape: tuple[int, ...]
    axes: Axes
    is_adapter: bool
    dtype: str | None  # None: that of the run, float32 when it is trained


class ModelDef(NamedTuple):
    """The graph of a decoder with its abstract state."""

    spec: Spec
    lora: dict[str, Lora]
    quantisation: Quantisation
    graph: nnx.GraphDef
    state: nnx.State
    select: tuple[str, ...] = ()  # patterns of names

    @property
    def leaves(self) -> dict[str, Leaf]:
        """Every parameter by name."""
        return {
            name: Leaf(
                tuple(leaf.shape),
                leaf.get_metadata()["axes"],
                isinstance(leaf, Adapter),
                str(leaf.dtype) if isinstance(leaf, Quantised) else None,
            )
            for name, leaf in _named(self.state)
        }

    @property
    def trained(self) -> list[str]:
        """Names of the parameters that training changes: adapters and what is selected, or everything when there is neither."""
        everything = not self.lora and not self.select
        return [
            name
            for name, leaf in self.leaves.items()
            if everything or leaf.is_adapter or self._is_selected(name)
        ]

    @property
    def frozen(self) -> list[str]:
        """Names of the parameters that training leaves alone."""
        trained = set(self.trained)
        return [name for name in self.leaves if name not in trained]

    def abstract(self, names: Iterable[str], mesh: jax.sharding.Mesh, dtype: str) -> Abstract:
        """Shapes with placement and with this dtype, or their own."""
        leaves = self.leaves
        return {
            name: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype or dtype, sharding=sharding(mesh, leaf.axes)
            )
            for name, leaf in ((name, leaves[name]) for name in names)
        }

    def decoder(self, parameters: Mapping[str, jax.Array]) -> Decoder:
        """The decoder with these numbers in it."""
        filled = [
            (tuple(name.split("/")), leaf.replace(parameters[name]))
            for name, leaf in _named(self.state)
        ]
        return nnx.merge(self.graph, nnx.from_flat_state(filled))

    def initialise(self, names: Iterable[str], mesh: jax.sharding.Mesh, seed: int) -> Parameters:
        """Fresh float32 numbers for these parameters, made where they will live."""
        wanted = self.abstract(names, mesh, "float32")

        def make(key: jax.Array) -> Parameters:
            made = {
                name: leaf.get_value()
                for name, leaf in _named(nnx.state(self._build(key, self.kernel)))
            }
            return {name: made[name] for name in wanted}

        # What is not returned is never computed: fresh adapters do not cost a fresh base. XLA spreads the random numbers as they
        # are to lie, which explicit axes would not: no device ever holds the whole of a spread one.
        placed = {name: leaf.sharding for name, leaf in wanted.items()}
        with jax.set_mesh(jax.sharding.Mesh(mesh.devices, mesh.axis_names)):
            return jax.jit(make, out_shardings=placed)(jax.random.key(seed))

    def _is_selected(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.select)

    def check_selected(self) -> None:
        """Raises ConfigError for a pattern that no name fits, and for what is selected and cannot be trained."""
        leaves = self.leaves
        for pattern in self.select:
            if not any(fnmatchcase(name, pattern) for name in leaves):
                raise ConfigError(
                    f"config.select.names: nothing is called {pattern!r}; there are {', '.join(sorted(leaves))}"
                )
        for name, leaf in leaves.items():
            if self._is_selected(name) and leaf.dtype is not None:
                raise ConfigError(
                    f"config.select.names: {name} is stored as {leaf.dtype}; set config.model.quantisation to 'none'"
                )
            if (
                self._is_selected(name)
                and name.endswith("/kernel")
                and name.replace("/kernel", "/lora_a") in leaves
            ):
                raise ConfigError(
                    f"config.select.names: {name} has an adapter; leave it out there, or in config.lora.targets"
                )

    @property
    def kernel(self) -> Concrete:
        """What computes attention."""
        return nnx.merge(self.graph, self.state).layers.attention.kernel

    @property
    def remat(self) -> Remat:
        """What a layer keeps."""
        return nnx.merge(self.graph, self.state).remat

    def with_kernel(self, kernel: Concrete) -> "ModelDef":
        """The same decoder with another attention kernel."""
        graph, state = nnx.split(nnx.eval_shape(lambda: self._build(jax.random.key(0), kernel)))
        return self._replace(graph=graph, state=state)

    def _build(self, key: jax.Array, kernel: Concrete) -> Decoder:
        like = nnx.merge(self.graph, self.state)
        made = Decoder(
            self.spec,
            self.lora,
            dtype=like.dtype,
            remat=like.remat,
            kernel=kernel,
            rngs=nnx.Rngs(key),
        )
        return _quantised(made, self.quantisation)


def model_def(
    spec: Spec,
    lora: LoraConfig | None,
    *,
    dtype: str,
    remat: Remat,
    kernel: Concrete,
    quantisation: Quantisation = "none",
    inside: bool = False,
    select: tuple[str, ...] = (),
) -> ModelDef:
    """The blueprint of a decoder; `lora` None means no adapters, `inside` that they are added to the kernels (`dense.Lora`).

    Raises ConfigError when `select` names what is not there, or cannot be trained.
    """
    targets = {}
    if lora is not None:
        targets = {
            t: Lora(lora.rank, lora.alpha, lora.dropout, inside)
            for t in TARGETS
            if t in lora.targets
        }

    def make() -> Decoder:
        return _quantised(
            Decoder(spec, targets, dtype=dtype, remat=remat, kernel=kernel, rngs=nnx.Rngs(0)),
            quantisation,
        )

    graph, state = nnx.split(nnx.eval_shape(make))
    made = ModelDef(spec, targets, quantisation, graph, state, select)
    made.check_selected()
    return made


def _quantised(decoder: Decoder, kind: Quantisation) -> Decoder:
    """The decoder with the kernels of all its linear maps as integers, or as it is when `kind` is none."""
    if kind != "none":
        for dense in [node for _, node in nnx.iter_graph(decoder) if isinstance(node, Dense)]:
            dense.quantise(kind)
    return decoder


def _named(state: nnx.State) -> Iterator[tuple[str, nnx.Variable]]:
    for path, leaf in nnx.to_flat_state(state):
        yield "/".join(map(str, path)), leaf
