"""What a run reads: base folder, tokenizer, examples, and the fingerprints by which a resumed run knows them again."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import grain

from e5jax.checkpoint.checkpointer import Identity
from e5jax.config import Training
from e5jax.config.mixture import Mixture
from e5jax.data.batches import BatchBuilder, batch_builder, fill_defaults, make_batches
from e5jax.data.epochs import SHUFFLE
from e5jax.data.records import Batch
from e5jax.data.sampler import mixture_of, open_sets
from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import Templates, TextTokenizer, read_tokenizer
from e5jax.errors import ConfigError
from e5jax.model import hf_weights
from e5jax.model.adapter import Adapter, read_adapter
from e5jax.model.families import read_spec
from e5jax.model.folder import ADAPTER, base_of, file_of, locate
from e5jax.model.quantise import check_groups
from e5jax.model.spec import Spec, check_bias, check_dimensions, check_divisible, check_top
from e5jax.train.base_settings import check_positions, differences, start_settings, with_ends

BOS, EOS = 1, 2  # of a tokenizer made here, as in Mistral's


class Inputs(NamedTuple):
    """Everything read before a device is touched."""

    base: (
        Path | None
    )  # whose weights are frozen, or trained from on; an adapter's folder stands for its base and itself together
    start: Adapter | None  # where the adapters begin; None: fresh ones, or none
    spec: Spec
    tokenizer: TextTokenizer
    batch_builder: BatchBuilder
    identity: Identity
    differences: tuple[str, ...] = ()  # from what the base's sentence-transformers files say

    @property
    def batches(self) -> grain.MapDataset[Batch]:
        """`batches[step]`, endless."""
        return make_batches(self.batch_builder)


def read_inputs(
    run: Training, files: Sequence[str | Path], tokenizer_file: Path | None, base: str
) -> Inputs:
    """Opens and checks all inputs. Raises ConfigError for whatever is wrong with them."""
    folder = locate(base) if base else None
    start = read_adapter(folder) if folder and run.lora else None
    if start is not None and run.lora is not None:
        start.check_same(run.lora)
    file = tokenizer_file or (
        file_of(folder, "tokenizer.json") if folder else Path("tokenizer.json")
    )
    spec = read_spec(folder).changed(run.model) if folder else scratch_spec(run, file)
    settings = start_settings(folder) if folder else None
    if folder:
        check_positions(folder, run)
    if folder and settings and tokenizer_file is None:
        spec = with_ends(spec, settings, folder)
    check_top(spec, run.select.top)
    spec = spec._replace(top=run.select.top)
    check_divisible(spec, run.mesh)
    check_bias(spec, run.tokens.limit)
    check_dimensions(spec, run.export.dimensions)
    check_groups(spec, run.model.quantisation, run.mesh)
    lower = settings is not None and settings.lower and tokenizer_file is None
    tokenizer, spec = _tokenizer(run, file, spec, lower=lower)
    mixture = mixture_of(run, files)
    sources = open_sets(mixture, run)
    identity = {
        **data_identity(mixture, sources, run),
        "tokenizer": tokenizer.fingerprint,
        "base": fingerprint(folder) if folder else f"scratch {said(spec)} seed {run.seed}",
    }
    said_of_base = tuple(differences(settings, run)) if settings else ()
    texts = batch_builder(mixture, sources, tokenizer, run)
    return Inputs(
        start.base if start else folder, start, spec, tokenizer, texts, identity, said_of_base
    )


def _tokenizer(run: Training, file: Path, spec: Spec, *, lower: bool) -> tuple[TextTokenizer, Spec]:
    """With the tokens that the run adds, and the shape with as many rows for them."""
    own, templates = (
        read_tokenizer(file).get_vocab_size(),
        Templates(run.tokens.query, run.tokens.document),
    )
    tokenizer = TextTokenizer.from_file(
        file, spec.bos, spec.eos, run.tokens.limit, templates, run.tokens.added, lower=lower
    )
    added = tokenizer.tokenizer.get_vocab_size() - own
    if own > spec.vocab:
        raise ConfigError(
            f"{file}: {own} pieces, but the model embeds only {spec.vocab}; use its own tokenizer"
        )
    if added and own < spec.vocab:
        raise ConfigError(
            f"config.tokens.added: the tokenizer has {own} pieces and the model {spec.vocab} rows, and new tokens would get rows "
            "that are there already; leave tokens.added empty, and use pieces that the tokenizer has"
        )
    return tokenizer, spec._replace(added=added)


def data_identity(
    mixture: Mixture, sources: Mapping[str, ExampleSource], run: Training
) -> dict[str, str]:
    """All that decides which example is where in which batch, entry by entry: what differs is then known by its name."""
    whole = {name: getattr(mixture, name) for name in ("shares", "order", "batches")}
    if mixture.shares == "size":
        whole["alpha"] = mixture.alpha
    found = {f"data.{name}": str(value) for name, value in whole.items()}
    found["data.shuffle"] = SHUFFLE
    found |= {
        "data.queries": str(run.batch.queries),
        "data.seed": str(run.seed),
        "data.instructions": str(run.data.instructions),
    }
    idle = {"ratio", "weight"} - {mixture.shares}
    for name, dataset in mixture.datasets.items():
        fields = asdict(fill_defaults(dataset, run)) | {"files": sources[name].fingerprint}
        if fields["positives"] == 1:  # as in every run before there was a choice
            del fields["positives"]
        found |= {
            f"data.{name}.{field}": str(value)
            for field, value in fields.items()
            if field not in idle
        }
    return found


def scratch_spec(run: Training, tokenizer_file: Path) -> Spec:
    """The shape of a decoder from scratch: sizes from the configuration, vocabulary from the tokenizer."""
    sizes = run.model.scratch
    assert sizes is not None, "validate checks that there is a base or scratch sizes"
    if not tokenizer_file.is_file():
        raise ConfigError(
            f"{tokenizer_file}: no such file; run the data stage first, or set config.tokens.tokenizer"
        )
    return Spec(
        family=sizes.family,
        vocab=read_tokenizer(tokenizer_file).get_vocab_size(),  # added tokens included
        hidden=sizes.hidden,
        ff=sizes.ff,
        layers=sizes.layers,
        heads=sizes.heads,
        kv_heads=sizes.kv_heads,
        head_size=sizes.head_size,
        theta=sizes.theta,
        window=sizes.window,
        epsilon=1e-5,
        bos=BOS,
        eos=EOS,
        bias=run.model.bias,
        causal=run.model.causal is not False,
    )


def said(spec: Spec) -> str:
    """The shape as it is written down: fields that came later are left out where they change nothing."""
    usual = Spec._field_defaults
    shown = (
        f"{name}={value!r}"
        for name, value in spec._asdict().items()
        if name not in usual or value != usual[name]
    )
    return f"Spec({', '.join(shown)})"


def fingerprint(folder: Path) -> str:
    """SHA-256 over config.json, what an adapter says of itself, and every byte of the weights."""
    digest = hashlib.sha256(file_of(folder, "config.json").read_bytes())
    said = [folder / ADAPTER] if base_of(folder) else []
    for file in [*said, *hf_weights.files(folder)]:
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
