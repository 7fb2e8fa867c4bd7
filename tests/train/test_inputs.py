import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from e5jax.config import Batch, Data, Mesh, Model, Scratch, Tokens, Training
from e5jax.config.mixture import Dataset, Mixture
from e5jax.data.epochs import SHUFFLE
from e5jax.data.records import Example
from e5jax.data.sampler import open_sets
from e5jax.data.tokenizer import train_tokenizer
from e5jax.errors import ConfigError
from e5jax.export.settings import settings
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.model.families import read_spec
from e5jax.model.families.mistral import config_from_spec
from e5jax.model.spec import Spec
from e5jax.train.inputs import Inputs, data_identity, fingerprint, read_inputs
from tests import tiny

PIECES = 265


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A tokenizer of 265 pieces and eight examples."""
    root = tmp_path_factory.mktemp("inputs")
    examples = [Example(str(i), f"query {i}", (f"answer {i}",), (f"wrong {i}",)) for i in range(8)]
    train_tokenizer([text for e in examples for text in (e.query, *e.positives)], PIECES).save(
        str(root / "tokenizer.json")
    )
    (root / "train.jsonl").write_text("".join(example.to_json() + "\n" for example in examples))
    return root


@pytest.fixture
def base(shared, tmp_path) -> Path:
    """A folder with a model's config, weights in two files, and the tokenizer."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(config_from_spec(tiny.SPEC._replace(vocab=PIECES), 64, "float32"))
    )
    for name in ("a", "b"):
        save_file({name: np.zeros(4, np.float32)}, folder / f"{name}.safetensors")
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "tokenizer.json").write_text((shared / "tokenizer.json").read_text())
    return folder


def run(**parts) -> Training:
    return Training(data=Data(files=("x",)), tokens=Tokens(limit=16), batch=Batch(4, 1, 1), **parts)


def read(shared: Path, base: Path | None, tokenizer: Path | None = None, **parts) -> Inputs:
    return read_inputs(run(**parts), [shared / "train.jsonl"], tokenizer, str(base) if base else "")


def flip_last_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_base_brings_its_shape_and_its_tokenizer(shared, base):
    inputs = read(shared, base)
    assert inputs.base == base
    assert inputs.spec == tiny.SPEC._replace(vocab=PIECES)
    assert inputs.tokenizer.tokenizer.get_vocab_size() == PIECES
    assert inputs.tokenizer.limit == 16
    assert inputs.batches[0].tokens.shape == (1, 12, 16)


def test_from_scratch_the_vocabulary_is_that_of_the_tokenizer(shared):
    sizes = Scratch(
        hidden=32, ff=48, layers=5, heads=4, kv_heads=2, head_size=16, theta=500.0, window=8
    )
    inputs = read(shared, None, shared / "tokenizer.json", model=Model(scratch=sizes))
    assert inputs.base is None
    assert inputs.spec == Spec("mistral", PIECES, 32, 48, 5, 4, 2, 16, 500.0, 8, 1e-5, 1, 2)
    # What checkpoints know a run from scratch by does not change when a shape gets new fields.
    said = "Spec(family='mistral', vocab=260, hidden=32, ff=48, layers=5, heads=4, kv_heads=2, head_size=16, theta=500.0, window=8"
    said = said.replace("260", str(PIECES))
    assert inputs.identity["base"] == f"scratch {said}, epsilon=1e-05, bos=1, eos=2) seed 0"


def test_from_scratch_added_tokens_have_embeddings_too(shared, tmp_path):
    tokenizer = Tokenizer.from_file(str(shared / "tokenizer.json"))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert (
        read(shared, None, tmp_path / "tokenizer.json", model=Model(scratch=Scratch())).spec.vocab
        == PIECES + 1
    )


def test_another_tokenizer_than_the_bases_can_be_given(shared, base):
    (base / "tokenizer.json").unlink()
    assert read(shared, base, shared / "tokenizer.json").tokenizer.bos == 1


def test_a_tokenizer_larger_than_the_models_vocabulary_is_refused_with_both_numbers(shared, base):
    (base / "config.json").write_text(
        json.dumps(config_from_spec(tiny.SPEC._replace(vocab=PIECES - 1), 64, "float32"))
    )
    with pytest.raises(ConfigError) as caught:
        read(shared, base)
    for words in (str(base / "tokenizer.json"), "265 pieces", "only 264", "its own tokenizer"):
        assert words in str(caught.value)


def test_a_base_without_tokenizer_is_refused(shared, base):
    (base / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json: no such file"):
        read(shared, base)


def test_a_run_from_scratch_without_tokenizer_is_refused_with_the_fix(shared, tmp_path):
    with pytest.raises(ConfigError, match=r"no\.json: no such file; run the data stage first"):
        read(shared, None, tmp_path / "no.json", model=Model(scratch=Scratch()))


def test_a_base_without_weights_is_refused(shared, base):
    (base / "b.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"b\.safetensors"):
        read(shared, base)


def test_a_mesh_that_does_not_divide_the_model_is_refused(shared, base):
    with pytest.raises(ConfigError, match=r"config\.mesh\.tensor=4: the model's kv_heads=2"):
        read(shared, base, mesh=Mesh(1, 1, 4))


def test_groups_that_the_model_does_not_fill_are_refused(shared, base):
    with pytest.raises(
        ConfigError, match=r"config\.model\.quantisation='int4' has groups of \d+ inputs"
    ):
        read(shared, base, model=Model(quantisation="int4"))


@pytest.mark.parametrize(
    ("model", "theta", "window"),
    [
        (Model(), 10_000.0, 15),
        (Model(theta=1e6), 1e6, 15),
        (Model(window=8), 10_000.0, 8),
        (Model(theta=5e5, window=0), 5e5, None),
    ],
)
def test_theta_and_window_of_the_base_can_be_changed_and_are_exported(
    shared, base, model, theta, window
):
    own = tiny.SPEC._replace(vocab=PIECES, window=15)
    (base / "config.json").write_text(json.dumps(config_from_spec(own, 64, "float32")))
    inputs = read(shared, base, model=model)
    assert inputs.spec == own._replace(theta=theta, window=window)
    exported = settings(
        TrainedModel(run(model=model), base, tiny.made(inputs.spec), {}, inputs.tokenizer, 0),
        Choice(),
    )["config.json"]
    assert isinstance(exported, dict)
    assert exported["sliding_window"] == window
    assert exported["rope_theta"] == exported["rope_parameters"]["rope_theta"] == theta
    (base / "config.json").write_text(json.dumps(exported))
    assert read_spec(base) == inputs.spec


def test_examples_may_have_fewer_negatives_than_the_batch_has_places_for(shared, base):
    inputs = read_inputs(
        Training(batch=Batch(4, 2, 1), tokens=Tokens(limit=16)),
        [shared / "train.jsonl"],
        None,
        str(base),
    )
    passages = inputs.batches[0].passages.reshape(
        4, 3
    )  # a positive and two places, of examples with one hard negative
    assert (passages >= 0).tolist() == [[True, True, False]] * 4


@pytest.mark.parametrize("name", ["a.safetensors", "b.safetensors", "config.json"])
def test_one_byte_of_weights_or_config_changes_the_fingerprint(name, base):
    before = fingerprint(base)
    assert fingerprint(base) == before
    flip_last_byte(base / name)
    assert fingerprint(base) != before


def test_moving_a_base_does_not_change_its_fingerprint(base, tmp_path):
    before = fingerprint(base)
    assert fingerprint(base.rename(tmp_path / "moved")) == before


def test_bytes_that_move_from_one_file_to_the_next_change_the_fingerprint(base):
    first, second = (base / f"{name}.safetensors" for name in "ab")
    before = fingerprint(base)
    whole = first.read_bytes() + second.read_bytes()
    first.write_bytes(whole[:-5])
    second.write_bytes(whole[-5:])
    assert fingerprint(base) != before


def test_each_input_has_its_own_entry_in_the_identity(shared, base, tmp_path):
    before = dict(read(shared, base).identity)

    def changed() -> set[str]:
        now = read(tmp_path, base).identity
        return {name for name in before if before[name] != now[name]}

    lines = (shared / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(lines)
    assert changed() == set()
    (tmp_path / "train.jsonl").write_text(lines.replace("answer 3", "answer 4"))
    assert changed() == {"data.train.files"}
    (tmp_path / "train.jsonl").write_text(lines)
    flip_last_byte(base / "a.safetensors")
    assert changed() == {"base"}
    flip_last_byte(base / "a.safetensors")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert changed() == {"tokenizer"}


def test_scratch_runs_differ_by_sizes_and_seed(shared):
    def base_of(seed: int, layers: int) -> str:
        return read(
            shared,
            None,
            shared / "tokenizer.json",
            model=Model(scratch=Scratch(layers=layers)),
            seed=seed,
        ).identity["base"]

    assert base_of(0, 2) == base_of(0, 2)
    assert len({base_of(0, 2), base_of(1, 2), base_of(0, 3)}) == 3


def test_what_changed_in_a_mixture_is_named_entry_by_entry(shared, tmp_path):
    lines = (shared / "train.jsonl").read_text().splitlines(keepends=True)
    for name, part in {"nq": lines[:4], "nli": lines[4:]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(part))

    def identity(order: str = "interleaved", batch: int = 4, **nq) -> dict[str, str]:
        sets = {
            "nli": Dataset((str(tmp_path / "nli.jsonl"),)),
            "nq": Dataset((str(tmp_path / "nq.jsonl"),), **nq),
        }
        of = Training(
            data=Data(mixture=Mixture(sets, order=order)),
            tokens=Tokens(limit=16),
            batch=Batch(batch, 1, 1),
        )
        return data_identity(of.data.mixture, open_sets(of.data.mixture, of), of)

    def changed(now: dict[str, str]) -> list[str]:
        return sorted(name for name in before | now if before.get(name) != now.get(name))

    before = identity()
    assert changed(identity()) == []
    assert before["data.shuffle"] == SHUFFLE
    assert changed(identity(ratio=0.5)) == ["data.nq.ratio"]
    assert (before["data.nq.ratio"], identity(ratio=0.5)["data.nq.ratio"]) == ("1.0", "0.5")
    assert changed(identity(instructions=("find it",))) == ["data.nq.instructions"]
    assert changed(identity(positives=1)) == []  # as runs without a choice had it
    assert changed(identity(positives=2)) == ["data.nq.positives"]
    assert changed(identity("random")) == ["data.order"]
    assert changed(identity(batch=2)) == ["data.queries"]
    assert changed(identity(weight=2.0)) == []  # nothing is drawn by it
    (tmp_path / "nq.jsonl").write_text("".join(lines[3::-1]))
    assert changed(identity()) == ["data.nq.files"]
