"""Values that are wrong or do not go together. `test_main` puts the table through the command line as well."""

import re

import pytest

from e5jax.config import TARGETS, Batch
from e5jax.config.load import load
from e5jax.config.validate import check_shards, is_hub_id
from e5jax.errors import ConfigError
from tests.config.test_load import PAPER, QUICK, ROOT, config_file


def run_of(arguments: str) -> str:
    """The text of a config file with a train stage only."""
    return f"def get_config():\n    return Config(stages=('train',), {arguments})\n"


SCRATCH = run_of("model=Model(scratch=Scratch(window=64)), data=Data(files=('a',))")
BOTH = run_of("model=Model(base='a/b', scratch=Scratch()), data=Data(files=('a',))")
LORA = run_of("model=Model(scratch=Scratch()), lora=Lora(), data=Data(files=('a',))")
NO_DATA = run_of("model=Model(base='a/b')")

# What is wrong -> (config file or its text, overrides, what the message must name: field, value, fix).
WRONG: dict[str, tuple[str, list[str], list[str]]] = {
    "literal": (
        PAPER,
        ["--config.model.pooling=cls"],
        ["config.model.pooling", "'cls'", "last, mean"],
    ),
    "stage": (
        PAPER,
        ["--config.stages=('train','exprt')"],
        ["config.stages", "'exprt'", "data, pretrain, train, export, eval"],
    ),
    "batch over shards": (
        PAPER,
        ["--config.batch.shards=96"],
        ["config.batch.queries=2048", "shards=96", "multiple of 96"],
    ),
    "no text a row": (
        PAPER,
        ["--config.batch.texts_a_row=0"],
        ["config.batch.texts_a_row=0", "at least 1"],
    ),
    "no shard": (PAPER, ["--config.batch.shards=0"], ["config.batch.shards=0", "at least 1"]),
    "short rows": (
        PAPER,
        ["--config.batch.row_tokens=511"],
        ["config.batch.row_tokens=511", "tokens.limit=512"],
    ),
    "batch over mesh": (
        PAPER,
        ["--config.mesh.fsdp=7"],
        ["config.batch.shards=16", "7", "shards to 112"],
    ),
    "batch over both axes": (
        PAPER,
        ["--config.mesh.fsdp=16", "--config.mesh.data=16"],
        ["shards=16", "= 256", "shards to 256"],
    ),
    "no queries": (PAPER, ["--config.batch.queries=0"], ["config.batch.queries=0", "at least 1"]),
    "a query and nothing else": (
        PAPER,
        ["--config.batch.queries=1", "--config.batch.shards=1", "--config.batch.negatives=0"],
        ["config.batch.queries=1", "config.batch.negatives=0", "raise one of them"],
    ),
    "a set compared with nothing": (
        PAPER,
        [
            "--config.data.mixture.datasets.nq.in_batch=False",
            "--config.data.mixture.datasets.nq.negatives=0",
        ],
        ["config.data.mixture.datasets.nq.in_batch=False", "batch.negatives", "in_batch=True"],
    ),
    "no chunks": (PAPER, ["--config.batch.chunks=0"], ["config.batch.chunks=0", "at least 1"]),
    "nothing to keep on the host": (
        PAPER,
        ["--config.batch.kept_on=host"],
        [
            "config.batch.kept_on='host'",
            "config.batch.kept_chunks=0",
            "set kept_chunks",
            "'device'",
        ],
    ),
    "directions without positives": (
        PAPER,
        ["--config.loss.directions=('doc_to_query',)"],
        ["config.loss.directions", "'query_to_doc'"],
    ),
    "direction": (
        PAPER,
        ["--config.loss.directions=('query_to_doc','q2p')"],
        [
            "config.loss.directions",
            "'q2p'",
            "query_to_doc, doc_to_query, query_to_query, doc_to_doc",
        ],
    ),
    "a softmax without its target": (
        PAPER,
        [
            "--config.loss.directions=('query_to_doc','doc_to_doc')",
            "--config.loss.partition=per_direction",
        ],
        ["config.loss.partition='per_direction'", "'doc_to_doc'", "'joint'"],
    ),
    "margin": (PAPER, ["--config.loss.margin=-0.1"], ["config.loss.margin=-0.1", "at least 0"]),
    "margin as a ratio": (
        PAPER,
        ["--config.loss.margin=1.1", "--config.loss.margin_kind=ratio"],
        ["margin=1.1", "'ratio'", "at most 1"],
    ),
    "bounds": (
        PAPER,
        ["--config.loss.bounds=(0.02,0.1)"],
        ["config.loss.bounds=(0.02, 0.1)", "below and above", "0.02"],
    ),
    "hardness": (
        PAPER,
        ["--config.loss.hardness_strength=-1"],
        ["config.loss.hardness_strength=-1", "at least 0"],
    ),
    "smoothing": (PAPER, ["--config.loss.smoothing=1"], ["config.loss.smoothing=1", "below 1"]),
    "prefix": (
        PAPER,
        ["--config.loss.dimensions=(64,0)"],
        ["config.loss.dimensions=(64, 0)", "at least 1"],
    ),
    "weights": (
        PAPER,
        ["--config.loss.dimensions=(64,32)", "--config.loss.weights=(1.0,)"],
        ["config.loss.weights=(1.0,)", "dimensions=(64, 32)"],
    ),
    "no positives": (
        PAPER,
        ["--config.batch.positives=0"],
        ["config.batch.positives=0", "at least 1"],
    ),
    "negative negatives": (
        PAPER,
        ["--config.batch.negatives=-1"],
        ["config.batch.negatives=-1", "at least 0"],
    ),
    "limit": (PAPER, ["--config.tokens.limit=2"], ["config.tokens.limit=2", "at least 3"]),
    "vocabulary": (
        PAPER,
        ["--config.tokens.vocabulary=299"],
        ["config.tokens.vocabulary=299", "at least 300"],
    ),
    "rank": (
        PAPER,
        ["--config.lora.rank=0"],
        ["config.lora.rank=0", "at least 1", "--config.lora=none"],
    ),
    "dropout": (PAPER, ["--config.lora.dropout=1"], ["config.lora.dropout=1.0", "below 1"]),
    "negative dropout": (
        PAPER,
        ["--config.lora.dropout=-0.1"],
        ["config.lora.dropout=-0.1", "at least 0"],
    ),
    "target": (
        PAPER,
        ["--config.lora.targets=('q','query')"],
        ["config.lora.targets", "'query'", "q, k, v, o, gate, up, down"],
    ),
    "no targets": (
        PAPER,
        ["--config.lora.targets=()"],
        ["config.lora.targets", "empty", "q, k, v"],
    ),
    "integers that are trained": (
        PAPER,
        ["--config.model.quantisation=int8", "--config.lora=none"],
        ["config.model.quantisation='int8'", "config.lora", "set lora", "'none'"],
    ),
    "a token twice": (
        PAPER,
        ["--config.tokens.added=('[Q]','[Q]')"],
        ["config.tokens.added=('[Q]', '[Q]')", "must differ"],
    ),
    "a blank token": (
        PAPER,
        ["--config.tokens.added=(' ',)"],
        ["config.tokens.added=(' ',)", "not be blank"],
    ),
    "instructions of documents": (
        PAPER,
        ["--config.tokens.document={task}: "],
        ["config.tokens.document='{task}: '", "leave {task} out"],
    ),
    "layers that nothing selects": (
        PAPER,
        ["--config.select.top=2"],
        ["config.select.top=2", "config.select.names", "('top/*',)"],
    ),
    "negative layers": (PAPER, ["--config.select.top=-1"], ["config.select.top=-1", "at least 0"]),
    "parts of random weights": (
        SCRATCH,
        ["--config.select.names=('*/scale',)"],
        ["config.select", "config.model.scratch", "random"],
    ),
    "dimensions": (
        PAPER,
        ["--config.export.dimensions=-1"],
        ["config.export.dimensions=-1", "at least 0"],
    ),
    "rounding": (
        PAPER,
        ["--config.model.rounding=uint8"],
        ["config.model.rounding", "'uint8'", "float32, int8, binary"],
    ),
    "quantisation": (
        PAPER,
        ["--config.model.quantisation=int2"],
        ["config.model.quantisation", "'int2'", "none, int8, int4"],
    ),
    "missing base": (
        PAPER,
        ["--config.model.base=./nowhere"],
        ["config.model.base", "'./nowhere'", "hub id"],
    ),
    "missing tokenizer": (
        PAPER,
        ["--config.tokens.tokenizer=no.json"],
        ["config.tokens.tokenizer", "'no.json'", "tokenizer.json"],
    ),
    "neither base nor scratch": (
        PAPER,
        ["--config.model.base="],
        ["config.model.base=''", "config.model.scratch", "exactly one"],
    ),
    "base and scratch": (
        BOTH,
        [],
        ["config.model.base='a/b'", "config.model.scratch", "exactly one"],
    ),
    "base beside pretrain": (
        QUICK,
        ["--config.model.base=a/b"],
        ["config.model.base='a/b'", "pretrain", "leave"],
    ),
    "adapters on random weights": (
        LORA,
        [],
        ["config.lora", "config.model.scratch", "set lora to none"],
    ),
    "half precision": (
        PAPER,
        ["--config.model.attention=cudnn", "--config.model.dtype=float32"],
        ["attention='cudnn'", "set bfloat16"],
    ),
    "odd rows": (
        PAPER,
        ["--config.model.attention=cudnn", "--config.tokens.limit=77"],
        ["'cudnn'", "limit=77", "set 78"],
    ),
    "rows of splash": (
        PAPER,
        ["--config.model.attention=splash", "--config.tokens.limit=500"],
        ["'splash'", "limit=500", "set 512"],
    ),
    "theta": (PAPER, ["--config.model.theta=0"], ["config.model.theta=0.0", "above 0", "none"]),
    "negative window": (
        PAPER,
        ["--config.model.window=-1"],
        ["config.model.window=-1", "at least 0"],
    ),
    "window of no base": (
        SCRATCH,
        ["--config.model.window=64"],
        ["config.model.window=64", "config.model.scratch.window"],
    ),
    "theta of no base": (
        SCRATCH,
        ["--config.model.theta=1e6"],
        ["config.model.theta=1000000.0", "config.model.scratch.theta"],
    ),
    "heads": (
        SCRATCH,
        ["--config.model.scratch.kv_heads=3"],
        ["config.model.scratch.kv_heads=3", "heads=4"],
    ),
    "head size": (
        SCRATCH,
        ["--config.model.scratch.head_size=7"],
        ["config.model.scratch.head_size=7", "even"],
    ),
    "no layers": (
        SCRATCH,
        ["--config.model.scratch.layers=0"],
        ["config.model.scratch.layers=0", "at least 1"],
    ),
    "warmup": (
        PAPER,
        ["--config.optim.warmup_steps=879"],
        ["config.optim.warmup_steps=879", "below", "steps=879"],
    ),
    "negative warmup": (
        PAPER,
        ["--config.optim.warmup_steps=-1"],
        ["config.optim.warmup_steps=-1", "at least 0"],
    ),
    "negative steps": (PAPER, ["--config.optim.steps=-5"], ["config.optim.steps=-5", "at least 1"]),
    "temperature": (
        PAPER,
        ["--config.loss.temperature=0"],
        ["config.loss.temperature=0.0", "above 0"],
    ),
    "scores": (
        PAPER,
        ["--config.loss.scores=blocked"],
        ["config.loss.scores", "'blocked'", "dense, chunked, ring"],
    ),
    "block": (PAPER, ["--config.loss.block=0"], ["config.loss.block=0", "at least 1"]),
    "block in pretrain": (
        QUICK,
        ["--config.pretrain.loss.block=-1"],
        ["config.pretrain.loss.block=-1", "at least 1"],
    ),
    "learning rate": (
        PAPER,
        ["--config.optim.learning_rate=nan"],
        ["config.optim.learning_rate=nan", "above 0"],
    ),
    "skips": (PAPER, ["--config.guard.skips=0"], ["config.guard.skips=0", "at least 1"]),
    "spike": (PAPER, ["--config.guard.spike=-1"], ["config.guard.spike=-1", "at least 0"]),
    "spike that is no number": (
        PAPER,
        ["--config.guard.spike=nan"],
        ["config.guard.spike=nan", "at least 0"],
    ),
    "window": (PAPER, ["--config.guard.window=1"], ["config.guard.window=1", "at least 2"]),
    "bucket": (
        PAPER,
        ["--config.checkpoint.folder=az://a/b"],
        ["config.checkpoint.folder='az://a/b'", "gs://, s3://"],
    ),
    "one folder for two": (
        QUICK,
        ["--config.checkpoint.folder=gs://a/b", "--config.pretrain.checkpoint.folder=gs://a/b"],
        ["config.checkpoint.folder='gs://a/b'", "give each its own"],
    ),
    "endless learning rate": (
        PAPER,
        ["--config.optim.learning_rate=inf"],
        ["config.optim.learning_rate=inf", "finite"],
    ),
    "clipping": (PAPER, ["--config.optim.clip_norm=0"], ["config.optim.clip_norm=0.0", "above 0"]),
    "epsilon": (PAPER, ["--config.optim.epsilon=-1"], ["config.optim.epsilon=-1.0", "above 0"]),
    "beta": (PAPER, ["--config.optim.beta2=1"], ["config.optim.beta2=1.0", "below 1"]),
    "weight decay": (
        PAPER,
        ["--config.optim.weight_decay=nan"],
        ["config.optim.weight_decay=nan", "at least 0"],
    ),
    "negative seed": (PAPER, ["--config.seed=-1"], ["config.seed=-1", "at least 0"]),
    "large seed": (
        PAPER,
        ["--config.seed=4294967296"],
        ["config.seed=4294967296", "below 4294967296"],
    ),
    "no first step of a profile": (
        PAPER,
        ["--config.profile.first=0"],
        ["config.profile.first=0", "at least 1"],
    ),
    "negative steps of a profile": (
        PAPER,
        ["--config.profile.steps=-1"],
        ["config.profile.steps=-1", "at least 0"],
    ),
    "profile beyond the end": (
        PAPER,
        ["--config.profile.first=878", "--config.profile.steps=3"],
        [
            "config.profile.first=878",
            "config.profile.steps=3",
            "step 880",
            "at most config.optim.steps=879",
        ],
    ),
    "profile of pretrain beyond the end": (
        QUICK,
        ["--config.pretrain.profile.steps=217"],
        [
            "config.pretrain.profile.first=5",
            "step 221",
            "config.pretrain.optim.steps=220",
            "trace fewer",
        ],
    ),
    "checkpoints": (
        PAPER,
        ["--config.checkpoint.every=0"],
        ["config.checkpoint.every=0", "at least 1"],
    ),
    "no checkpoint kept": (
        PAPER,
        ["--config.checkpoint.keep=0"],
        ["config.checkpoint.keep=0", "at least 1"],
    ),
    "mesh size": (PAPER, ["--config.mesh.tensor=0"], ["config.mesh.tensor=0", "-1 for all"]),
    "two rests": (
        PAPER,
        ["--config.mesh.data=-1"],
        ["config.mesh", "'data': -1, 'fsdp': -1", "all but one a size"],
    ),
    "ratio": (
        PAPER,
        ["--config.data.mixture.datasets.nq.ratio=1.5"],
        ["datasets.nq.ratio=1.5", "at most 1", "shares='weight'"],
    ),
    "tokens of a set": (
        PAPER,
        ["--config.data.mixture.datasets.nq.query_tokens=513"],
        ["config.data.mixture.datasets.nq.query_tokens=513", "tokens.limit=512"],
    ),
    "positives of a set": (
        PAPER,
        ["--config.data.mixture.datasets.nq.positives=2"],
        ["config.data.mixture.datasets.nq.positives=2", "batch.positives=1"],
    ),
    "negatives of a set": (
        PAPER,
        ["--config.data.mixture.datasets.nq.negatives=2"],
        ["config.data.mixture.datasets.nq.negatives=2", "batch.negatives=1"],
    ),
    "set that is not there": (
        PAPER,
        ["--config.data.mixture.datasets.quoro.ratio=0.5"],
        ["config.data.mixture.datasets has no field 'quoro'", "did you mean quora?"],
    ),
    "alpha": (
        PAPER,
        ["--config.data.mixture.alpha=1.5"],
        ["config.data.mixture.alpha=1.5", "at most 1"],
    ),
    "order": (
        PAPER,
        ["--config.data.mixture.order=sorted"],
        ["config.data.mixture.order", "'sorted'", "interleaved, random"],
    ),
    "workers": (PAPER, ["--config.data.workers=-1"], ["config.data.workers=-1", "at least 0"]),
    "no data": (NO_DATA, [], ["config.data.files", "config.data.harvest", "set one"]),
    "no data for pretrain": (
        QUICK,
        ["--config.pretrain.data.harvest=none"],
        ["config.pretrain.data.files", "set one"],
    ),
    "pretrain without its stage": (
        QUICK,
        ["--config.stages=('data','train')"],
        ["config.stages", "config.pretrain=set", "neither"],
    ),
    "stage without pretrain": (
        QUICK,
        ["--config.pretrain=none"],
        ["config.stages", "config.pretrain=None", "neither"],
    ),
    "wrong value in pretrain": (
        QUICK,
        ["--config.pretrain.batch.chunks=0"],
        ["config.pretrain.batch.chunks=0", "at least 1"],
    ),
    "heldout without harvest": (
        PAPER,
        ["--config.eval.tasks=('heldout',)"],
        ["config.eval.tasks", "heldout", "MTEB tasks"],
    ),
    "data stage without harvest": (
        PAPER,
        ["--config.stages=('data','train')"],
        ["config.stages", "harvest is None", "stage out"],
    ),
    "pretrain without the harvest": (
        QUICK,
        ["--config.data.harvest=none", "--config.data.files=('a',)"],
        ["config.pretrain.data.harvest", "config.data.harvest", "use one object"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_value_is_one_config_error_with_field_value_and_fix(name, tmp_path):
    text, overrides, named = WRONG[name]
    path = config_file(tmp_path, text) if "\n" in text else text
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    for words in named:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


RIGHT: dict[str, tuple[str, list[str]]] = {
    "window with cudnn": (SCRATCH, ["--config.model.attention=cudnn"]),
    "window with splash": (
        SCRATCH,
        ["--config.model.attention=splash", "--config.tokens.limit=384"],
    ),
    "any length blockwise": (
        SCRATCH,
        ["--config.model.attention=blockwise", "--config.tokens.limit=77"],
    ),
    "base without its window": (PAPER, ["--config.model.window=0"]),
    "the base's own window and theta": (
        PAPER,
        ["--config.model.window=none", "--config.model.theta=none"],
    ),
    "another theta for what pretraining leaves": (
        QUICK,
        ["--config.model.theta=1e6", "--config.model.window=32"],
    ),
    "integers": (PAPER, ["--config.model.quantisation=int4"]),
    "norms beside integers": (
        PAPER,
        [
            "--config.model.quantisation=int8",
            "--config.lora=none",
            "--config.select.names=('*/scale',)",
        ],
    ),
    "both directions": (
        PAPER,
        ["--config.model.causal=false", "--config.model.pooling=weighted_mean"],
    ),
    "sides": (
        PAPER,
        [
            "--config.tokens.added=('[Q]','[D]')",
            "--config.tokens.query=[Q]",
            "--config.tokens.document=[D]",
        ],
    ),
    "fewer dimensions": (PAPER, ["--config.export.dimensions=256", "--config.model.rounding=int8"]),
    "the last layers": (
        PAPER,
        [
            "--config.lora=none",
            "--config.select.names=('top/*','norm/scale')",
            "--config.select.top=4",
        ],
    ),
    "no dropout": (PAPER, ["--config.lora.dropout=0"]),
    "rank 1": (PAPER, ["--config.lora.rank=1"]),
    "all weights": (PAPER, ["--config.lora=none"]),
    "a step of warm-up less than steps": (PAPER, ["--config.optim.warmup_steps=878"]),
    "no warm-up": (PAPER, ["--config.optim.warmup_steps=0"]),
    "no hard negatives": (PAPER, ["--config.batch.negatives=0", "--config.batch.chunks=32"]),
    "rows of two": (PAPER, ["--config.batch.row_tokens=1024"]),
    "chunks that do not divide the texts": (PAPER, ["--config.batch.chunks=7"]),
    "rest on another axis": (PAPER, ["--config.mesh.data=-1", "--config.mesh.fsdp=16"]),
    "a base that is a folder": (PAPER, [f"--config.model.base={ROOT}"]),
    "one passage a block": (PAPER, ["--config.loss.scores=ring", "--config.loss.block=1"]),
    "profile of the last step": (PAPER, ["--config.profile.first=879", "--config.profile.steps=1"]),
    "no profile of a short run": (
        PAPER,
        ["--config.optim.steps=2", "--config.optim.warmup_steps=1"],
    ),
    "largest seed": (PAPER, ["--config.seed=4294967295"]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_values_at_the_border_are_accepted(name, tmp_path):
    text, overrides = RIGHT[name]
    load(config_file(tmp_path, text) if "\n" in text else text, overrides)


@pytest.mark.parametrize("target", TARGETS)
def test_every_linear_map_is_a_target(target):
    assert load(PAPER, [f"--config.lora.targets=({target!r},)"]).lora.targets == (target,)


def test_devices_take_whole_shards_and_the_advised_number_fits():
    check_shards(Batch(shards=16), 8)
    with pytest.raises(ConfigError, match=r"shards=16.* = 24 does not divide") as caught:
        check_shards(Batch(shards=16), 24)
    advised = int(re.findall(r"set shards to (\d+)", str(caught.value))[0])
    check_shards(Batch(shards=advised), 24)


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        ("org/name", True),
        ("./name", False),
        ("~/name", False),
        ("/name", False),
        ("name", False),
        ("a/b/c", False),
        ("configs/..", False),
    ],
)
def test_hub_ids_have_two_parts_and_are_no_folders(name, is_id, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert is_hub_id(name) is is_id
