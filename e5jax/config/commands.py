"""Options of the commands: each default is written here only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from e5jax.config.options import Help
from e5jax.config.schema import Precision

MODEL = Help("Hugging Face folder or hub id of the model", "DIR")
RUN = Help("directory of the run", "DIR")
TEXTS = "JSONL, CSV, TSV, Parquet or lines of text (.txt), also compressed; see docs/data.md"
FIELD = Help("JSON field or table column with the text")
OVERSAMPLE = 4  # of e5jax.inference.rescore
CONFIG = Help("Python config file; --config.field=value overrides it", "FILE")


@dataclass(frozen=True)
class EncodeOptions:
    """Embeds the texts of a file; the same command resumes."""

    model: Annotated[str, MODEL]
    input: Annotated[Path, Help(TEXTS, "FILE")]
    output: Annotated[Path, Help("vectors: .npy, .safetensors or .parquet", "FILE")]
    field: Annotated[str, FIELD] = "text"
    instruction: Annotated[
        str | None, Help("task of queries; documents have none", exclusive="prefix")
    ] = None
    prompt: Annotated[
        str | None, Help("a prompt of the folder, such as query", "NAME", exclusive="prefix")
    ] = None
    compute: Annotated[
        Literal["float32", "bfloat16"] | None,
        Help("dtype of weights and compute (default: the folder's)"),
    ] = None
    dtype: Annotated[Literal["float32", "float16"], Help("dtype of the output")] = "float32"
    dimensions: Annotated[
        int | None, Help("leading dimensions to keep (default: the folder's)", "N")
    ] = None
    precision: Annotated[Precision, Help("precision of the output; see docs/compact.md")] = (
        "float32"
    )
    limit: Annotated[int | None, Help("maximum tokens per text (default: the folder's)", "N")] = (
        None
    )
    shard: Annotated[int, Help("texts between two saves", "N")] = 16_384


@dataclass(frozen=True)
class CalibrateOptions:
    """Measures the ranges of int8 vectors on texts and stores them in the model's folder."""

    model: Annotated[Path, Help("folder of the model, which receives ranges.json", "DIR")]
    input: Annotated[Path, Help("texts like those to be stored, in any format of encode", "FILE")]
    field: Annotated[str, FIELD] = "text"
    dimensions: Annotated[
        tuple[int, ...], Help("numbers of dimensions (default: the folder's)", "N,M")
    ] = ()
    most: Annotated[int, Help("maximum number of texts, spread over the file", "N")] = 10_000


@dataclass(frozen=True)
class ExportOptions:
    """Writes the newest checkpoint of a run as a verified Hugging Face folder."""

    workdir: Annotated[Path, RUN]
    output: Annotated[Path, Help("folder to write; only an earlier export is replaced", "DIR")]
    format: Annotated[
        Literal["merged", "adapter"],
        Help("merged: adapters folded into the base; adapter: PEFT files beside the base"),
    ] = "merged"
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        Help("dtype of the weights (default: the run's config.export.dtype)"),
    ] = None
    base_name: Annotated[
        str, Help("name of an adapter's base (default: as in the run's config)", "NAME")
    ] = ""
    shard_gigabytes: Annotated[float, Help("maximum size of a file of weights", "GB")] = 5
    verify: Annotated[bool, Help("write without verification")] = True
    push_to_hub: Annotated[
        str | None, Help("also upload the folder to the Hugging Face hub", "OWNER/NAME")
    ] = None
    private: Annotated[bool, Help("make a new repository private")] = False


@dataclass(frozen=True)
class EvalOptions:
    """Runs MTEB tasks on a model folder, or writes the texts of the tasks."""

    output: Annotated[
        Path, Help("folder of results.json and mteb's results; the same command resumes", "DIR")
    ]
    model: Annotated[
        str | None,
        Help("Hugging Face folder or hub id of the model", "DIR", "action", required=True),
    ] = None
    texts: Annotated[
        bool,
        Help(
            "write texts.jsonl, which `e5jax data clean --evaluation` removes from training data",
            exclusive="action",
        ),
    ] = False
    report: Annotated[
        bool, Help("rewrite the report of --output; evaluate nothing", exclusive="action")
    ] = False
    tasks: Annotated[str, Help("MTEB tasks, folders in BEIR layout, or both", "A,B")] = ""
    benchmark: Annotated[
        str | None, Help("an MTEB benchmark: 'MTEB(eng, v1)', NanoBEIR, …", "NAME")
    ] = None
    preset: Annotated[
        Literal["paper", "mteb-v2"],
        Help("evaluation of E5-Mistral's authors, or of mteb; see docs/evaluation.md"),
    ] = "paper"
    backend: Annotated[Literal["torch", "jax"], Help("library that runs the model")] = "torch"
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        Help(
            "dtype of weights and compute (default: float32 on CPUs; otherwise float16 on torch, "
            "bfloat16 on jax)"
        ),
    ] = None
    instruction: Annotated[
        str | None, Help("instruction of all tasks (default: each task's own); empty: none")
    ] = None
    beside: Annotated[
        tuple[str, ...],
        Help(
            "other results of mteb, or the paper's: paper, paper:public only, …; repeatable",
            "NAME=DIR",
        ),
    ] = ()
    data: Annotated[
        tuple[Path, ...],
        Help(
            "training data of `e5jax data clean` or `prepare`; the report shows which texts of the "
            "tasks were in it",
            "DIR",
        ),
    ] = ()
    price: Annotated[float | None, Help("price per hour, for the report", "MONEY")] = None
    vectors: Annotated[Path | None, Help("folder that keeps all vectors for later runs", "DIR")] = (
        None
    )


@dataclass(frozen=True)
class CompactOptions:
    """Measures quality and speed of search on compressed vectors."""

    model: Annotated[str, MODEL]
    task: Annotated[Path, Help("folder in BEIR layout", "DIR")]
    output: Annotated[Path, Help("folder of results.json and report.html", "DIR")]
    dimensions: Annotated[
        tuple[int, ...], Help("leading dimensions (default: all, a half, …)", "N,M")
    ] = ()
    precisions: Annotated[
        tuple[Precision, ...], Help("precisions of the stored vectors", "A,B")
    ] = (
        "float32",
        "int8",
        "binary",
    )
    oversample: Annotated[int, Help("candidates per result", "N")] = OVERSAMPLE
    instruction: Annotated[
        str | None, Help("instruction of the queries (default: the task's); empty: none")
    ] = None
    rows: Annotated[int, Help("vectors in the timed searches", "N")] = 100_000


@dataclass(frozen=True)
class MineOptions:
    """Files of `e5jax mine`; the rules are `e5jax.mine.settings.Mining`."""

    model: Annotated[str, MODEL]
    input: Annotated[Path, Help("records, JSONL; their negatives are replaced", "FILE")]
    output: Annotated[Path, Help("folder of mined.jsonl, report.json and vectors/", "DIR")]
    corpus: Annotated[
        str,
        Help("texts in any format of encode, or from-records: the passages of the records", "FILE"),
    ] = "from-records"


@dataclass(frozen=True)
class PlanOptions:
    """Compiles a config's training step for a machine that is not there, and prints its needs."""

    config: Annotated[str, CONFIG]
    topology: Annotated[
        str, Help("v5e:4x4, v4:2x2x4, v5p:2x2x2, v6e:4x4, v5e:1x1, cpu:8, …", "NAME")
    ]
    slices: Annotated[int, Help("number of slices", "N")] = 1
    lengths: Annotated[
        str | None,
        Help(
            "mean tokens of queries and passages, such as 40,180 (default: every text at the limit)",
            "QUERY,PASSAGE",
        ),
    ] = None
    json: Annotated[bool, Help("print one JSON object")] = False
    search: Annotated[
        bool, Help("search the fastest setting that fits: mesh, chunks, remat, base precision")
    ] = False
    limit: Annotated[int, Help("maximum trials of a search", "N")] = 20
    headroom: Annotated[
        float, Help("memory of a chip that a search leaves free, in percent", "PERCENT")
    ] = 8


@dataclass(frozen=True)
class SynthOptions:
    """Generates training examples with a language model; the same command resumes."""

    config: Annotated[str, CONFIG]
    output: Annotated[
        Path | None, Help("directory of the run (default: runs/ and the config's name)", "DIR")
    ] = None
    dry_run: Annotated[
        bool, Help("send no request; print number of requests, tokens, cost and prompts")
    ] = False
