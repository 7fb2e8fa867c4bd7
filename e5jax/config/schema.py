"""The typed configuration tree. Files and overrides are read by `loading`, values checked by `validate`, JSON is `snapshot`."""

import typing
from dataclasses import dataclass, field
from typing import Literal

from e5jax.config.mixture import Mixture

Pooling = Literal["last", "mean", "weighted_mean"]
Dtype = Literal["float32", "bfloat16"]
Precision = Literal[
    "float32", "int8", "uint8", "binary", "ubinary"
]  # of stored vectors, as sentence-transformers has them
Rounding = Literal["float32", "int8", "binary"]
Remat = Literal["nothing", "projections", "attention", "everything"]
KeptOn = Literal["device", "host"]
Quantisation = Literal["none", "int8", "int4"]
Kernel = Literal["auto", "xla", "blockwise", "cudnn", "splash"]
Scores = Literal["dense", "chunked", "ring"]
Direction = Literal[
    "query_to_doc", "doc_to_query", "query_to_query", "doc_to_doc"
]  # who is scored against whom: queries and documents
HardnessMode = Literal["all_negatives", "hard_negatives", "in_batch_negatives"]
Target = Literal["q", "k", "v", "o", "gate", "up", "down"]
StageName = Literal["data", "pretrain", "train", "export", "eval"]
TARGETS: tuple[Target, ...] = typing.get_args(Target)
QUERY = "Instruct: {task}\nQuery: "  # of E5-Mistral (arXiv 2401.00368, section 3.2); documents stay bare
Tree = typing.TypeVar("Tree")


@dataclass(slots=True)
class Harvest:
    """Docstring -> function pairs from the Python sources installed on this machine."""

    train_pairs: int = 24_000
    heldout_pairs: int = 1_200
    heldout_pairs_per_package: int = 60
    train_pairs_per_package: int = 1_500
    task: str = "Retrieve the function that this describes"


@dataclass(slots=True)
class Data:
    """Where training examples come from: `harvest` builds them, `files` names one set's, or `mixture` several sets'.

    Files go before the mixture, and the mixture before the harvest: `--config.data.files` trains on those files alone.
    """

    harvest: Harvest | None = None
    files: tuple[str, ...] = ()
    mixture: Mixture = field(default_factory=Mixture)
    instructions: bool = True  # False drops the task instruction from every query
    workers: int = 0  # processes that tokenise and pack ahead; 0: a thread of this process


@dataclass(slots=True)
class Tokens:
    """How text becomes ids. `tokenizer` empty: the base's own, or a new one of `vocabulary` pieces when from scratch."""

    tokenizer: str = ""
    vocabulary: int = 8_192
    limit: int = 512  # tokens a text, BOS and EOS included
    added: tuple[str, ...] = ()  # new tokens, whose rows of the embedding are trained
    query: str = QUERY  # what queries begin with; with {task} in it, only those that have one
    document: str = ""  # what documents begin with


@dataclass(slots=True)
class Scratch:
    """Sizes of a decoder that starts from random weights."""

    family: Literal["mistral"] = "mistral"
    hidden: int = 256
    ff: int = 704
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 64
    theta: float = 10_000.0
    window: int | None = None


@dataclass(slots=True)
class Model:
    """The decoder: `base` is a Hugging Face folder or hub id, or empty with `scratch` sizes.

    `theta`, `window` and `causal` change the base's own; the export carries them.
    """

    base: str = ""
    scratch: Scratch | None = None
    pooling: Pooling = "last"
    rounding: Rounding = "float32"  # of vectors before the loss; gradients pass through as if there were none (docs/compact.md)
    dtype: Dtype = (
        "bfloat16"  # of compute and of frozen weights; trained parameters are always float32
    )
    quantisation: Quantisation = (
        "none"  # of the kernels of a frozen base: int8 by output, int4 by groups of 128 inputs
    )
    remat: Remat = "projections"
    attention: Kernel = "auto"  # what fits platform and length: see `model.kernels.choose`
    theta: float | None = None  # base of the rotary embedding; None: the base's own
    window: int | None = (
        None  # tokens that a token sees, itself included; None: the base's own, 0: all before it
    )
    bias: bool = False  # adds one, zero at first, to every linear map of a base without: what `select` may train (UDEVER's BitFit)
    causal: bool | None = (
        None  # False: a token sees its whole text, not only what is before it; None: the base's own
    )


@dataclass(slots=True)
class Lora:
    """Low-rank adapters (arXiv 2106.09685): `y = x W + alpha / rank · dropout(x) A B`."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.1
    targets: tuple[str, ...] = TARGETS


@dataclass(slots=True)
class Select:
    """Parameters that are trained beside adapters, or instead of all: those whose names fit a pattern (docs/selection.md).

    Names are as in a checkpoint: `*/scale` are all norms, `top/*` is all of the last `top` layers, which without it are among
    `layers/*`. Nothing else has moments, and no gradient goes below the lowest that is trained.
    """

    names: tuple[str, ...] = ()
    top: int = 0


@dataclass(slots=True)
class Batch:
    """The global batch: queries × (1 + positives + negatives) texts at most, packed into rows, the rows in `chunks` equal parts.

    Texts fill the leading chunks, empty ones cost nothing. The first `kept_chunks` keep their activations; the others are
    encoded again for their gradient (GradCache). `kept_on="host"` sends what is kept to the host's memory and fetches it back:
    more chunks than the device has room for. Rows belong to `shards`, which devices take whole.
    """

    queries: int = 2_048
    negatives: int = 1
    chunks: int = 48
    kept_chunks: int = 0  # at most all
    unrolled: bool = False  # kept chunks one after the other in the program, not in a loop: 5 to 10 % faster, longer to compile
    kept_on: KeptOn = "device"
    row_tokens: int = 0  # 0: tokens.limit; longer rows hold more short texts
    texts_a_row: int = 8  # at most
    shards: int = 1  # fixes the layout: data × fsdp must divide it
    positives: int = 1  # of a query, at most, each a pair of the loss; of more, as many are drawn

    @property
    def texts(self) -> int:
        """Queries, positives and hard negatives."""
        return self.queries * (1 + self.positives + self.negatives)

    def width(self, limit: int) -> int:
        """Tokens a row, when texts have at most `limit`."""
        return self.row_tokens or limit

    def sure(self, limit: int) -> int:
        """Texts of at most `limit` tokens that every row can hold.

        First fit opens a row only when no other has room, and a row with fewer texts has room: texts / sure rows hold any batch.
        """
        return min(self.width(limit) // limit, self.texts_a_row)


@dataclass(slots=True)
class Optim:
    """AdamW with linear warm-up and linear decay to zero at `steps`."""

    learning_rate: float = 1e-4
    steps: int = 879
    warmup_steps: int = 100
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


@dataclass(slots=True)
class Loss:
    """InfoNCE over cosine / temperature (arXiv 2401.00368, eq. 2), and what makes other recipes of it (docs/objective.md).

    `scores` changes what a device holds, not the result. `dense`: its queries against all passages at once. `chunked`: all
    passages, but scores of `block` of them at a time, and again in the backward pass. `ring`: scores as `chunked`, and
    passages are never gathered: they travel from device to device, with their gradients in the backward pass.
    """

    temperature: float = 0.02
    scores: Scores = "dense"
    block: int = 4_096  # passages scored at a time by `chunked` and `ring`
    directions: tuple[str, ...] = ("query_to_doc",)  # of `Direction`
    partition: Literal["joint", "per_direction"] = (
        "joint"  # one softmax over all directions, or the mean of one for each
    )
    mask_duplicates: bool = False  # a text that equals or belongs to the query or its positive is no negative, on any device
    margin: float | None = (
        None  # a text is no negative that scores above the positive's cosine plus this, or times this
    )
    margin_kind: Literal["difference", "ratio"] = "difference"
    hardness_strength: float = (
        0.0  # this times its cosine is added to the logit of a negative passage, without a gradient
    )
    hardness_mode: HardnessMode = "all_negatives"  # which negatives get it
    smoothing: float = 0.0  # share of the target that is spread over all candidates
    dimensions: tuple[
        int, ...
    ] = ()  # prefixes whose losses are summed (Matryoshka, arXiv 2205.13147); empty: the whole vector
    weights: tuple[float, ...] = ()  # of the prefixes; empty: 1 each
    bounds: tuple[
        float, ...
    ] = ()  # lowest and highest of a temperature that is learned; empty: it stays as it is


@dataclass(slots=True)
class Guard:
    """Updates that are not made: those whose loss or gradient is not finite, and with `spike` those far above the usual.

    Then nothing of the state changes, the batch is written to `skipped/`, and the run goes on with the next one.
    """

    skips: int = 8  # in a row, after which the run ends
    spike: float = (
        0.0  # standard deviations of loss or gradient norm above their running means; 0: off
    )
    window: int = (
        100  # steps that the running means are of; before as many nothing is called a spike
    )


@dataclass(slots=True)
class Mesh:
    """Devices along each mesh axis; their product is the number of devices. -1 on one axis: all that are left."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


@dataclass(slots=True)
class Checkpoint:
    """Saved every `every` steps, at the end, and when the run is told to stop; the newest `keep` stay.

    Steps wait for a save: a run that is killed loses at most `every` of them. With `background=True` they go on while it is
    written, for states that take long (all parameters of a large model), and those taken meanwhile may be lost as well; as the
    next save waits for it, never more than 2 × `every` in all.
    """

    folder: str = ""  # a folder of its own, or gs://BUCKET/NAME, s3://BUCKET/NAME; empty: checkpoints/ of the run
    every: int = 100
    keep: int = 3
    forever: int = 0  # each whose step is a multiple of it stays for good; 0: none
    seconds: int = 600  # that a save may take
    background: bool = False


@dataclass(slots=True)
class Watchdog:
    """Seconds after which a run that hangs is ended, exit code 99; the same command goes on from its last checkpoint."""

    step: int = 600  # that a batch or a step may take
    start: int = (
        3_600  # that each phase before the first step may take, and the other processes to come
    )
    silence: int = 60  # without a sign of another process, which is then taken for dead


@dataclass(slots=True)
class Log:
    """Metrics go to `metrics.jsonl` always."""

    tensorboard: bool = True
    wandb_project: str = ""  # empty: Weights & Biases stays off


@dataclass(slots=True)
class Probe:
    """Retrieval while training, on the training mesh: nDCG@10 of small sets in `metrics.jsonl`, as `probe/FOLDER/ndcg_at_10`."""

    every: int = 0  # steps, and at the end; 0: never
    folders: tuple[str, ...] = ()  # in BEIR layout
    queries: int = 200  # of a folder, at most: the first
    documents: int = (
        2_000  # of a folder, about: what is right for these queries, then the first others
    )


@dataclass(slots=True)
class Profile:
    """Where the time of a step goes: a trace of `steps` steps from step `first` on, below `profile/` (docs/profiling.md)."""

    first: int = 5  # counted from 1, as in the log; the steps before warm caches and threads up
    steps: int = 0  # 0: none


@dataclass(slots=True)
class Export:
    """The Hugging Face folder."""

    dtype: Dtype = "bfloat16"
    task: str = ""  # bare instruction of the folder's `query` prompt; empty: none
    dimensions: int = 0  # leading ones that readers of the folder keep (`truncate_dim`); 0: all


@dataclass(slots=True)
class Eval:
    """MTEB tasks by name, or `heldout` for the pairs that the harvest set aside."""

    tasks: tuple[str, ...] = ("heldout",)
    backend: Literal["jax", "torch"] = "torch"
    preset: Literal["paper", "mteb-v2"] = "paper"  # docs/evaluation.md


@dataclass(slots=True)
class Training:
    """All that one training run is made of."""

    seed: int = 0
    data: Data = field(default_factory=Data)
    tokens: Tokens = field(default_factory=Tokens)
    model: Model = field(default_factory=Model)
    lora: Lora | None = None  # None: every parameter is trained, or what `select` names
    select: Select = field(default_factory=Select)
    batch: Batch = field(default_factory=Batch)
    loss: Loss = field(default_factory=Loss)
    optim: Optim = field(default_factory=Optim)
    guard: Guard = field(default_factory=Guard)
    mesh: Mesh = field(default_factory=Mesh)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)
    profile: Profile = field(default_factory=Profile)
    probe: Probe = field(default_factory=Probe)
    export: Export = field(default_factory=Export)


@dataclass(slots=True)
class Config(Training):
    """A run: its stages in order. `pretrain` is a run of its own whose export becomes the base of this one."""

    stages: tuple[str, ...] = ("train", "export", "eval")
    pretrain: Training | None = None
    eval: Eval = field(default_factory=Eval)
    watchdog: Watchdog = field(default_factory=Watchdog)
