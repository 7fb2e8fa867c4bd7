"""Several sets as one: epochs, batches, what each set may ask for, and that neither hosts, workers nor resuming show.

E5JAX_MIXTURE_EXAMPLES=500 repeats the last property that often, which takes a quarter of an hour.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from e5jax.config import Batch, Data, Tokens, Training
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.batches import batch_builder, make_batches
from e5jax.data.prefetch import Prefetcher
from e5jax.data.records import Batch as Packed
from e5jax.data.records import Example
from e5jax.data.sampler import ALONE, Sampler, make_sampler, mixture_of, open_sets
from e5jax.data.tokenizer import TextTokenizer, train_tokenizer
from e5jax.errors import ConfigError
from tests import tiny

EXAMPLES = int(os.environ.get("E5JAX_MIXTURE_EXAMPLES", "4"))
COUNTS = {"big": 60, "mid": 31, "small": 13}
TASKS = ("find it", "seek it")


# --- rows ------------------------------------------------------------------------------------------------------

mixtures = st.builds(
    lambda ratios, shares, alpha, order, batches: (
        {f"set{number}": size for number, (size, _) in enumerate(ratios)},
        Mixture(
            {
                f"set{number}": Dataset(("x",), ratio, weight=1 + 2 * ratio)
                for number, (_, ratio) in enumerate(ratios)
            },
            *(shares, alpha, order, batches),
        ),
    ),
    st.lists(
        st.tuples(st.integers(1, 120), st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0])),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["ratio", "weight", "size"]),
    st.floats(0, 1),
    st.sampled_from(["interleaved", "random"]),
    st.sampled_from(["mixed", "homogeneous"]),
)


def rows_of(draws: Sampler, steps: int, *, homogeneous: bool, queries: int) -> dict[str, list[int]]:
    """The rows of each set, draw by draw; checks every batch on the way."""
    found: dict[str, list[int]] = {name: [] for name in draws.names}
    for step in range(steps):
        drawn = draws(step)
        assert (
            len(drawn.rows)
            == queries
            == len(set(zip(drawn.sets.tolist(), drawn.rows.tolist(), strict=True)))
        )
        assert not homogeneous or len(set(drawn.sets.tolist())) == 1
        for number, row in zip(drawn.sets.tolist(), drawn.rows.tolist(), strict=True):
            found[draws.names[number]].append(row)
    return found


@settings(max_examples=12 * EXAMPLES // 4, deadline=None)
@given(mixtures, st.integers(1, 24), st.integers(0, 3))
def test_a_batch_holds_no_example_twice_and_an_epoch_every_example_once(drawn, queries, seed):
    sizes, mixture = drawn
    try:
        draws = make_sampler(mixture, sizes, queries, seed)
    except ConfigError as error:
        assert "must not contain one twice" in str(error)  # noqa: PT017  most drawn mixtures are fine
        return
    found = rows_of(draws, 25, homogeneous=mixture.batches == "homogeneous", queries=queries)
    for name, rows in found.items():
        epochs = [rows[i : i + sizes[name]] for i in range(0, len(rows), sizes[name])]
        assert all(sorted(epoch) == list(range(sizes[name])) for epoch in epochs[:-1])
        assert max(Counter(epochs[-1]).values(), default=1) == 1 if epochs else True


def test_a_ratio_takes_its_part_of_the_set_an_epoch_and_another_part_in_the_next():
    sizes = {"tenth": 200, "third": 99, "all": 40}
    datasets = {
        "tenth": Dataset(("x",), 0.1),
        "third": Dataset(("x",), 1 / 3),
        "all": Dataset(("x",)),
    }
    draws = make_sampler(
        Mixture(datasets), sizes, 31, 0
    )  # an epoch of 20 + 33 + 40 draws is three batches
    found = rows_of(draws, 90, homogeneous=False, queries=31)
    for name, each in {"tenth": 20, "third": 33, "all": 40}.items():
        epochs = [set(found[name][i : i + each]) for i in range(0, len(found[name]), each)]
        assert len(epochs) == 30
        assert all(len(epoch) == each for epoch in epochs)
        if each < sizes[name]:
            assert all(not a & b for a, b in zip(epochs[::3], epochs[1::3], strict=True))
            assert len({frozenset(epoch) for epoch in epochs}) > 20  # other parts in the next round
    assert found["all"][:40] != found["all"][40:80]


def test_the_order_of_the_sets_in_the_configuration_does_not_matter():
    datasets = {name: Dataset(("x",)) for name in COUNTS}
    turned = dict(reversed(datasets.items()))
    a, b = (make_sampler(Mixture(sets), COUNTS, 8, 0) for sets in (datasets, turned))
    assert all(a(step).rows.tolist() == b(step).rows.tolist() for step in range(5))


def test_a_set_that_cannot_fill_its_part_of_a_batch_is_refused_by_name():
    mixture = Mixture({"big": Dataset(("x",)), "small": Dataset(("x",), weight=9)}, shares="weight")
    with pytest.raises(
        ConfigError,
        match=r"queries=20: there are only 13 examples in small, and a batch takes up to 18",
    ):
        make_sampler(mixture, {"big": 60, "small": 13}, 20, 0)
    mixture.batches = "homogeneous"
    with pytest.raises(ConfigError, match=r"13 examples in small, and a batch takes up to 20"):
        make_sampler(mixture, {"big": 60, "small": 13}, 20, 0)


# --- batches ---------------------------------------------------------------------------------------------------


def example(name: str, i: int) -> Example:
    wrong = tuple(f"wrong {name} {i} {letter}" for letter in "abc"[: i % 4])
    return Example(f"{name}{i}", f"query {name} {i}", (f"answer {name} {i}",), wrong, "own task")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mixture")
    for name, count in COUNTS.items():
        (root / f"{name}.jsonl").write_text(
            "".join(example(name, i).to_json() + "\n" for i in range(count))
        )
    return root


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    texts = [
        text
        for name in COUNTS
        for i in range(20)
        for text in (*TASKS, "own task", example(name, i).query)
    ]
    return TextTokenizer(train_tokenizer(texts, 400), 1, 2, 48)


def datasets(folder: Path, **of: dict) -> dict[str, Dataset]:
    return {name: Dataset((str(folder / f"{name}.jsonl"),), **of.get(name, {})) for name in COUNTS}


def run(queries: int = 8, shards: int = 8, seed: int = 0) -> Training:
    return Training(
        seed=seed, batch=Batch(queries, 2, 2, shards=shards), tokens=Tokens(limit=48), data=Data()
    )


def made(mixture: Mixture, tokenizer: TextTokenizer, of: Training):
    """Everything opened anew, as each host of a run does it."""
    return make_batches(batch_builder(mixture, open_sets(mixture, of), tokenizer, of))


@pytest.fixture
def text(tokenizer):
    """Ids as text, without the spaces that this tokenizer does not keep."""
    return lambda ids: tokenizer.tokenizer.decode(ids[1:-1]).replace(" ", "")


def test_each_set_is_trained_on_as_it_says(folder, tokenizer, text):
    sets = datasets(
        folder,
        big={"instructions": TASKS, "symmetric": True, "negatives": 0, "temperature": 0.5},
        mid={"in_batch": True, "passage_tokens": 5, "query_tokens": 9},
        small={"instructions": TASKS[:1], "negatives": 1, "in_batch": True},
    )
    sets["small"].negatives = None
    batches = made(Mixture(sets, "size", 0.0), tokenizer, run(24))
    seen = Counter()
    for step in range(6):
        for one in tiny.unpack(batches[step]):
            query, passages = text(one.query), [text(ids) for ids in one.passages]
            name = next((name for name in COUNTS if f"query{name}" in query), "mid")
            seen[name] += 1
            if name == "big":
                number = int(query.rpartition("big")[2])
                task = TASKS[number % 2].replace(" ", "")
                assert query == f"instruct:{task}query:querybig{number}"
                assert passages == [f"instruct:{task}query:answerbig{number}"]
                assert one.temperature == np.float32(0.5)
            elif name == "mid":
                assert len(one.query) <= 9
                assert max(map(len, one.passages)) <= 5
                assert one.temperature == np.float32(0.02)
            else:
                number = int(query.rpartition("small")[2])
                assert query.startswith("instruct:finditquery:")
                assert passages[0] == f"answersmall{number}"
                assert len(passages) == 1 + min(number % 4, 2)
    assert seen == dict.fromkeys(COUNTS, 48)


def test_every_batch_is_homogeneous_over_eight_hosts(folder, tokenizer, text):
    batches = made(Mixture(datasets(folder), batches="homogeneous"), tokenizer, run(8, 8))
    kinds = []
    for step in range(20):
        hosts = [tiny.unpack(part) for part in parts(batches[step], 8)]
        found = {
            next(name for name in COUNTS if f"query{name}" in text(one.query))
            for host in hosts
            for one in host
        }
        assert all(len(host) == 1 for host in hosts)
        assert len(found) == 1
        kinds += found
    assert set(kinds) == set(COUNTS)


def parts(batch: Packed, hosts: int) -> list[Packed]:
    """What each host hands to its devices: its shards' rows of every chunk, and its shards' texts."""
    rows = [np.split(part, hosts, axis=1) for part in batch[:4]]
    texts = [np.split(part, hosts, axis=0) for part in batch[4:]]
    return [Packed(*(part[host] for part in (*rows, *texts))) for host in range(hosts)]


def digest(batch: Packed) -> str:
    found = hashlib.sha256()
    for part in batch:
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def joined(of: list[Packed]) -> Packed:
    arrays = list(zip(*of, strict=True))
    return Packed(
        *(np.concatenate(part, axis=1) for part in arrays[:4]),
        *(np.concatenate(part) for part in arrays[4:]),
    )


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 10,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(["ratio", "size"]),
    st.sampled_from(["interleaved", "random"]),
    st.sampled_from(["mixed", "homogeneous"]),
    st.integers(0, 9),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([0, 1, 3]),
    st.integers(0, 40),
    st.integers(0, 5),
)
def test_a_batch_is_the_same_for_any_hosts_and_workers_fresh_or_resumed(  # noqa: PLR0917  one property of all of them
    folder, tokenizer, shares, order, kind, seed, hosts, workers, start, ahead
):
    mixture = Mixture(datasets(folder), shares, 0.5, order, kind)
    of = run(seed=seed)
    expected = [
        digest(made(mixture, tokenizer, of)[step]) for step in range(start, start + ahead + 1)
    ]
    found = []
    for host in range(hosts):
        with Prefetcher(
            made(mixture, tokenizer, of), start, start + ahead + 1, workers if host == 0 else 0
        ) as feed:
            found.append([parts(batch, hosts)[host] for batch in feed])
    assert [digest(joined(list(batch))) for batch in zip(*found, strict=True)] == expected


@pytest.mark.parametrize(
    ("queries", "in_batch", "refused"),
    [(8, True, False), (8, False, True), (1, True, True), (1, False, True)],
)
def test_what_a_set_needs_follows_from_how_it_is_trained_on(queries, in_batch, refused, folder):
    """One in four examples of a set has no hard negatives: that is for training to refuse, or to take, before its first step."""
    of = run(queries, 1)
    mixture = Mixture({"big": datasets(folder, big={"in_batch": in_batch})["big"]})
    if not refused:
        assert open_sets(mixture, of)
    else:
        with pytest.raises(
            ConfigError,
            match=rf"{folder / 'big.jsonl'}:1: no negatives, and its query is compared with no others",
        ):
            open_sets(mixture, of)


def test_files_of_a_run_may_be_uneven_as_those_of_a_mixture_may(folder):
    assert mixture_of(run(), [folder / "big.jsonl"]).datasets[ALONE].negatives is None
    assert len(open_sets(mixture_of(run(), [folder / "big.jsonl"]), run())[ALONE]) == COUNTS["big"]
