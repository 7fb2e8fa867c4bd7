"""The decoder against transformers' Mistral, and what packing, padding, remat, precision and the mesh must not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh

from e5jax.model.model_def import ModelDef, model_def
from e5jax.model.spec import Spec
from tests import tiny

BASE = tiny.SPEC._replace(layers=2)
ROWS, WIDTH = 8, 16


def hidden_states(
    of: ModelDef,
    values: dict[str, np.ndarray],
    on: Mesh,
    tokens: np.ndarray,
    segments: np.ndarray,
    positions: np.ndarray,
) -> np.ndarray:
    trained, frozen = tiny.place(of, values, on)
    with jax.set_mesh(on):
        run = jax.jit(lambda parameters, *rows: of.decoder(parameters)(*rows))
        return np.asarray(
            run(trained | frozen, *tiny.rows(on, tokens, segments, positions)), np.float32
        )


def pad(lengths: list[int], side: str, vocab: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tokens, segments, positions) of random texts of these lengths, one a row."""
    random = np.random.default_rng(len(lengths))
    width = max(lengths)
    tokens = random.integers(0, vocab, (len(lengths), width)).astype(
        np.int32
    )  # padding is not zero
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, length in enumerate(lengths):
        where = slice(width - length, width) if side == "left" else slice(0, length)
        segments[row, where] = 1
        positions[row, where] = np.arange(length)
    return tokens, segments, positions


def spec(
    heads: int, kv_heads: int, head_size: int, theta: float, window: int | None, layers: int = 2
) -> Spec:
    return BASE._replace(
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        theta=theta,
        window=window,
        layers=layers,
    )


@pytest.mark.parametrize(
    ("shape", "lengths", "side"),
    [
        (spec(4, 2, 16, 1e4, None), [24, 9, 1, 17], "right"),
        (spec(4, 2, 16, 1e6, None), [24, 9, 1, 17], "left"),
        (spec(4, 4, 16, 1e4, None), [12, 12], "right"),
        (spec(4, 1, 16, 1e6, None), [40, 3], "left"),
        (spec(8, 2, 4, 1e4, None), [30, 31], "right"),
        (spec(2, 2, 64, 1e4, None), [20, 8], "right"),  # heads × head size = 128, hidden = 64
        (spec(4, 2, 8, 1e6, None), [20, 8], "left"),  # heads × head size = 32
        (spec(4, 2, 16, 1e4, 5), [24, 9, 1, 17], "right"),
        (spec(4, 2, 16, 1e6, 5), [24, 9, 1, 17], "left"),
        (spec(4, 2, 16, 1e4, 24), [24, 23], "right"),
        (spec(4, 2, 16, 1e4, 23), [24, 23], "left"),
        (spec(4, 2, 16, 1e4, 1), [6, 4], "right"),
        (spec(4, 2, 16, 1e4, None), [1], "right"),
        (spec(4, 2, 16, 1e6, None, layers=1), [300, 130], "right"),
        (spec(4, 2, 16, 1e4, 128, layers=3), [300, 130], "left"),
        (spec(4, 2, 16, 1e4, None, layers=2)._replace(causal=False), [60, 22], "right"),
        (spec(4, 2, 16, 1e4, 7, layers=2)._replace(causal=False), [60, 22], "left"),
        (spec(4, 2, 16, 1e4, None, layers=2)._replace(bias=True), [60, 22], "right"),
    ],
)
def test_hidden_states_equal_those_of_transformers(shape, lengths, side):
    of = tiny.made(shape, lora=None)
    values = tiny.numbers(of, seed=1)
    tokens, segments, positions = pad(lengths, side, shape.vocab)
    ours = hidden_states(of, values, tiny.mesh(1, 1, 1), tokens, segments, positions)
    with torch.no_grad():
        theirs = tiny.torch_mistral(of, values)(
            torch.from_numpy(tokens).long(), torch.from_numpy(segments)
        ).last_hidden_state
    # States are of size 1 to 4, so 1e-4 is float32 rounding over a few layers; a wrong window or position gives > 1e-2.
    assert np.abs(ours - theirs.numpy())[segments > 0].max() <= 1e-4


@pytest.fixture(scope="module")
def model():
    """(tokens, segments, positions) of `ROWS` rows -> hidden states on one device, compiled once."""
    of = tiny.made(BASE, lora=None)
    values = tiny.numbers(of)
    on = tiny.mesh(1, 1, 1)
    trained, frozen = tiny.place(of, values, on)
    with jax.set_mesh(on):
        run = jax.jit(of.decoder(trained | frozen))

    def states(tokens: np.ndarray, segments: np.ndarray, positions: np.ndarray) -> np.ndarray:
        with jax.set_mesh(on):
            return np.asarray(run(*tiny.rows(on, tokens, segments, positions)))

    return states


@pytest.fixture(scope="module")
def sensitivity():
    """Gradient norms `[vocab]` of the state at one place with respect to each id's embedding: (segments, row, place) -> norms.

    Token ids are 3, 4, 5, … along the row, so an id stands for a place.
    """
    of = tiny.made(BASE._replace(window=6), lora=None)
    on = tiny.mesh(1, 1, 1)
    parameters = tiny.place(of, tiny.numbers(of), on)[0]
    tokens = np.arange(3, 3 + WIDTH, dtype=np.int32)[None]

    def state(embedding, segments, positions, choice):
        hidden = of.decoder(parameters | {"embedding": embedding})(tokens, segments, positions)
        return jnp.sum(
            jnp.einsum("ntd,t->d", hidden, choice) * jnp.cos(jnp.arange(hidden.shape[-1]))
        )

    with jax.set_mesh(on):
        gradient = jax.jit(jax.grad(state))
        tokens = tiny.rows(on, tokens)[0]

    def norms(lengths: list[int], place: int) -> np.ndarray:
        segments, positions = pack(lengths)
        with jax.set_mesh(on):
            rows = tiny.rows(on, segments[None], positions[None])
            found = gradient(
                parameters["embedding"], *rows, jnp.asarray(np.eye(WIDTH, dtype=np.float32)[place])
            )
        return np.linalg.norm(found, axis=-1)[3 : 3 + WIDTH]

    return norms


def pack(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(segments, positions) of one row with texts of these lengths one behind the other, then padding."""
    segments, positions = np.zeros(WIDTH, np.int32), np.zeros(WIDTH, np.int32)
    start = 0
    for number, length in enumerate(lengths, 1):
        segments[start : start + length] = number
        positions[start : start + length] = np.arange(length)
        start += length
    return segments, positions


@pytest.mark.parametrize("place", [0, 3, 15])
def test_a_token_depends_on_itself_and_the_past_and_on_no_future_token(sensitivity, place):
    norms = sensitivity([WIDTH], place)
    assert (norms[place + 1 :] == 0).all()
    # Two layers with a window of 6 reach back 2 · 5 tokens.
    first = max(place - 10, 0)
    assert (norms[first : place + 1] > 0).all()
    assert (norms[:first] == 0).all()


@pytest.mark.parametrize("place", [4, 5, 8])
def test_gradient_between_texts_of_one_row_is_exactly_zero(sensitivity, place):
    norms = sensitivity([5, 4], place)
    own = slice(0, 5) if place < 5 else slice(5, place + 1)
    assert (norms[own] > 0).all()
    assert np.delete(norms, np.arange(WIDTH)[own]).max() == 0


def random_rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, BASE.vocab, (ROWS, WIDTH)).astype(np.int32)


def test_changing_a_token_changes_nothing_before_it(model):
    tokens, (segments, positions) = random_rows(0), pack([WIDTH])
    whole = [np.broadcast_to(x, (ROWS, WIDTH)).copy() for x in (segments, positions)]
    changed = tokens.copy()
    changed[:, 9] = (tokens[:, 9] + 1) % BASE.vocab
    before, after = model(tokens, *whole), model(changed, *whole)
    assert np.array_equal(before[:, :9], after[:, :9])
    assert (np.abs(before[:, 9:] - after[:, 9:]).max(axis=(0, 2)) > 1e-4).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_padding_holds_changes_no_real_token(model, side):
    tokens, segments, positions = pad([WIDTH, 1, 5, 9, 12, 3, 15, 2], side, BASE.vocab)
    other = np.where(segments > 0, tokens, random_rows(1))
    assert np.array_equal(
        model(tokens, segments, positions)[segments > 0],
        model(other, segments, positions)[segments > 0],
    )


def test_texts_packed_in_a_row_equal_the_texts_alone(model):
    lengths = [[5, 11], [8, 8], [1, 15], [3, 4], [2, 7], [6, 6], [10, 2], [9, 1]]
    tokens = random_rows(2)
    segments, positions = (np.stack(x) for x in zip(*map(pack, lengths), strict=True))
    packed = model(tokens, segments, positions)
    for number in (1, 2):
        alone = np.zeros_like(tokens)
        for row, (first, second) in enumerate(lengths):
            start, length = (0, first) if number == 1 else (first, second)
            alone[row, :length] = tokens[row, start : start + length]
        length = np.array(lengths)[:, number - 1]
        real = (np.arange(WIDTH)[None] < length[:, None]).astype(np.int32)
        states = model(alone, real, real * np.arange(WIDTH, dtype=np.int32)[None])
        # Same numbers summed in another place of the row: rounding of float32 only.
        assert np.abs(states[real > 0] - packed[segments == number]).max() <= 1e-5


@pytest.fixture(scope="module")
def one_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = [[5, 11], [8, 8], [1, 15], [3, 4], [2, 7], [6, 6], [10, 2], [9, 1]]
    segments, positions = (np.stack(x) for x in zip(*map(pack, lengths), strict=True))
    return random_rows(3), segments, positions


def test_remat_policies_give_the_same_gradients(one_batch):
    on = tiny.mesh(1, 1, 1)
    found = []
    for remat in ("everything", "projections", "nothing"):
        of = tiny.made(BASE, remat=remat)
        trained, frozen = tiny.place(of, tiny.numbers(of), on)
        with jax.set_mesh(on):
            rows = tiny.rows(on, *one_batch)
            loss = jax.jit(
                jax.grad(
                    lambda t, of=of, frozen=frozen, rows=rows: jnp.mean(
                        jnp.sin(of.decoder(frozen | t)(*rows))
                    )
                ),
            )
            found.append(loss(trained))
    for other in found[1:]:
        for name, wanted in found[0].items():
            # Recomputing repeats the same operations: only their order of fusion may differ.
            assert np.linalg.norm(other[name] - wanted) <= 1e-5 * np.linalg.norm(wanted), name


def test_remat_policies_keep_more_the_less_they_recompute():
    on = tiny.mesh(1, 1, 1)
    kept = {}
    for remat in ("everything", "projections", "nothing"):
        of = tiny.made(BASE, remat=remat)
        trained, frozen = tiny.place(of, tiny.numbers(of), on)
        with jax.set_mesh(on):
            rows = tiny.rows(on, *(np.zeros((ROWS, WIDTH), np.int32) for _ in range(3)))

            def run(
                t: dict, of: ModelDef = of, frozen: dict = frozen, rows: list = rows
            ) -> jax.Array:
                return of.decoder(frozen | t)(*rows)

            backward = jax.eval_shape(lambda t, run=run: jax.vjp(run, t)[1], trained)
        kept[remat] = sum(leaf.size for leaf in jax.tree.leaves(backward))
    assert kept["everything"] > kept["projections"] > kept["nothing"]


def test_bfloat16_is_close_to_float32(one_batch):
    values = tiny.numbers(tiny.made(BASE, lora=None))
    on = tiny.mesh(1, 1, 1)
    wide = hidden_states(tiny.made(BASE, lora=None), values, on, *one_batch)
    narrow = model_def(BASE, None, dtype="bfloat16", remat="projections", kernel="xla")
    found = hidden_states(narrow, values, on, *one_batch)
    # bfloat16 has 8 bits: each of a dozen roundings on the way adds about 2^-9 = 0.2 %, in quadrature under 1.5 %.
    difference = np.linalg.norm(found - wide) / np.linalg.norm(wide)
    assert 1e-4 < difference < 1.5e-2


def test_every_mesh_gives_the_same_states(one_batch):
    of = tiny.made(BASE)
    values = tiny.numbers(of)
    alone, spread = (
        hidden_states(of, values, tiny.mesh(*sizes), *one_batch) for sizes in ((1, 1, 1), (2, 2, 2))
    )
    # `tensor` splits the sums over heads and ff in two: float32 rounding.
    assert np.abs(alone - spread).max() <= 1e-5
