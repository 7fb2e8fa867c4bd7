"""Does it help? Switches of the objective on and off, the same seeds on both sides: differences of held-out nDCG@10.

.venv/bin/python benchmarks/study.py --work=DIR [--seeds=5] [--output=FILE]

Pairs are the quickstart's, harvested once. A run is a training run with its export, as `e5jax run` does them, in a process of its
own: a small decoder from scratch, 100 batches of 128 pairs, or 50 more from where the plain run of that seed ended; evaluated on
packages that no training pair is from. Every finished run is a line of DIR/runs.jsonl; the same command goes on after the last.
Intervals are Student's, over the differences of the seeds.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

WIDTH, STEPS, MORE, QUERIES = 128, 100, 50, 128
SHORT = WIDTH // 8
SMALLEST = 300  # pairs of a package that is a set
PLANTED, COPIED = (
    0.1,
    8,
)  # share of the pairs that are copies, and of how many others they are copies


class Comparison(NamedTuple):
    """Two arms, and what is measured of each."""

    question: str
    on: str
    off: str
    measure: str


COMPARISONS = (
    Comparison("duplicates masked, 10 % planted", "masked", "planted", "whole"),
    Comparison("batches of one package, not mixed", "homogeneous", "plain", "whole"),
    Comparison("prefixes in the loss, at 1/8 of the dimensions", "prefixes", "plain", "short"),
    Comparison("prefixes in the loss, at all dimensions", "prefixes", "plain", "whole"),
    Comparison("trained through binary at the end, bits by bits", "binary", "further", "bits"),
    Comparison(
        "trained through binary at the end, bits by float queries", "binary", "further", "rescored"
    ),
    Comparison(
        "trained through binary from the start, bits by bits", "binary_alone", "plain", "bits"
    ),
)
ARMS = (
    "plain",
    "planted",
    "masked",
    "homogeneous",
    "prefixes",
    "binary_alone",
    "further",
    "binary",
)
LATER = ("further", "binary")  # than the plain run, from its export on


def main() -> None:
    """Does the runs that are missing, prints the table, writes it."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--work", type=Path, required=True)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--output", type=Path)
    options.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    options.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.arm:
        work(args.arm, args.seed, args.work)
        return
    prepare(args.work)
    done = args.work / "runs.jsonl"
    for seed in range(args.seeds):
        for arm in ARMS:
            if (arm, seed) not in read(done):
                command = [
                    sys.executable,
                    __file__,
                    f"--work={args.work}",
                    f"--arm={arm}",
                    f"--seed={seed}",
                ]
                cached = {
                    "JAX_COMPILATION_CACHE_DIR": str(args.work / "programs"),
                    "JAX_PLATFORMS": "cpu",
                }
                subprocess.run(command, check=True, env=os.environ | cached)
    text = table(
        {key: scores for key, scores in read(done).items() if key[1] < args.seeds}, args.seeds
    )
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> dict[tuple[str, int], dict[str, float]]:
    """What was measured of each arm and seed."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(line["arm"], line["seed"]): line["scores"] for line in map(json.loads, lines)}


def table(found: Mapping[tuple[str, int], Mapping[str, float]], seeds: int) -> str:
    """One line a comparison, in Markdown."""
    from scipy.stats import t

    lines = [
        "| question | beside | nDCG@10 with | without | difference | 95 % interval | of each seed |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for one in COMPARISONS:
        sides = [
            np.array([found[arm, seed][one.measure] for seed in range(seeds)])
            for arm in (one.on, one.off)
        ]
        differences = sides[0] - sides[1]
        half = t.ppf(0.975, seeds - 1) * differences.std(ddof=1) / seeds**0.5
        mean = differences.mean()
        each = ", ".join(f"{value:+.4f}" for value in differences)
        lines.append(
            f"| {one.question} | {one.off} | {sides[0].mean():.4f} | {sides[1].mean():.4f} | {mean:+.4f} "
            f"| {mean - half:+.4f} to {mean + half:+.4f} | {each} |"
        )
    return "\n".join(lines)


# --- data ------------------------------------------------------------------------------------------------------


def prepare(work: Path) -> None:
    """Harvests pairs, and makes of them a file a package, and one of all of these with planted copies."""
    from e5jax.config import Harvest
    from e5jax.data.source import ExampleSource
    from e5jax.data.tokenizer import train_tokenizer
    from e5jax.datasets.docstring_pairs import harvest
    from e5jax.workdir.directory import atomic_output

    if (work / "data").is_dir():
        return
    with atomic_output(work / "data") as folder:
        harvest(Harvest(), folder)
        source = ExampleSource([folder / "train.jsonl"])
        examples = [source[i]._replace(negatives=()) for i in range(len(source))]
        texts = (text for one in examples for text in (one.query, *one.positives))
        train_tokenizer(texts, 8_192).save(str(folder / "tokenizer.json"))
        by_package = defaultdict(list)
        for one in examples:
            by_package[one.source].append(one)
        sets = {name: those for name, those in sorted(by_package.items()) if len(those) >= SMALLEST}
        for name, those in sets.items():
            write(folder / "packages" / f"{name.lower()}.jsonl", those)
        write(folder / "planted.jsonl", planted([one for those in sets.values() for one in those]))


def planted(examples: list) -> list:
    """A tenth of the pairs says what one of a few others says."""
    order = np.random.default_rng(0).permutation(len(examples)).tolist()
    copied, changed = order[:COPIED], order[COPIED : COPIED + round(PLANTED * len(examples))]
    examples = list(examples)
    for number, place in enumerate(changed):
        of = examples[copied[number % COPIED]]
        examples[place] = of._replace(id=f"{of.id}:{number}")
    return examples


def write(path: Path, examples: list) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(one.to_json() + "\n" for one in examples), encoding="utf-8")


# --- one run ---------------------------------------------------------------------------------------------------


def work(arm: str, seed: int, place: Path) -> None:
    """Trains, exports, evaluates, and writes down what was found."""
    from e5jax.config.validate import validate
    from e5jax.export.trained_model import Choice
    from e5jax.pipeline import export_to, run
    from e5jax.workdir.directory import Workdir

    begun, workdir = time.perf_counter(), Workdir(place / f"{arm}-{seed}")
    shutil.rmtree(workdir.root, ignore_errors=True)  # of a run that broke off
    config = config_of(arm, seed, place / "data")
    validate(config)
    run(config, workdir)
    export_to(config, workdir, workdir.export, Choice(verify=False))
    line = {"arm": arm, "seed": seed, "scores": scores(workdir.export, place / "data" / "heldout")}
    line["seconds"] = time.perf_counter() - begun
    with (place / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    if arm != "plain":
        shutil.rmtree(workdir.root)
    print(json.dumps(line), flush=True)


def config_of(arm: str, seed: int, data: Path):
    """The training run of an arm: what differs from the plain one is in this function alone."""
    from e5jax.config import (
        Batch,
        Checkpoint,
        Config,
        Data,
        Export,
        Loss,
        Mesh,
        Model,
        Optim,
        Scratch,
        Tokens,
    )
    from e5jax.config.mixture import Dataset, Mixture

    files = (
        [data / "planted.jsonl"]
        if arm in ("planted", "masked")
        else sorted((data / "packages").iterdir())
    )
    mixture = Mixture(
        datasets={path.stem: Dataset(files=(str(path),)) for path in files},
        shares="size",
        batches="homogeneous" if arm == "homogeneous" else "mixed",
    )
    loss = Loss(mask_duplicates=arm == "masked")
    if arm == "prefixes":
        loss.dimensions = tuple(WIDTH >> times for times in range(4))
    model = Model(
        dtype="float32",
        remat="attention",
        rounding="binary" if arm.startswith("binary") else "float32",
    )
    optim, tokens = (
        Optim(learning_rate=2e-3, steps=STEPS, warmup_steps=10, weight_decay=0.01),
        Tokens(limit=48),
    )
    if arm in LATER:
        model.base = str(data.parent / f"plain-{seed}" / "export")
        optim.learning_rate, optim.steps, optim.warmup_steps = 1e-3, MORE, 5
    else:
        model.scratch = Scratch(
            hidden=WIDTH, ff=2 * WIDTH, layers=2, heads=4, kv_heads=2, head_size=32
        )
        tokens.tokenizer = str(data / "tokenizer.json")
    return Config(
        stages=("train",),
        seed=seed + 1_000 * (arm in LATER),  # other batches than those that it has seen
        data=Data(mixture=mixture, instructions=False),
        tokens=tokens,
        model=model,
        batch=Batch(
            queries=QUERIES,
            negatives=0,
            chunks=16,
            kept_chunks=16,
            row_tokens=96,
            texts_a_row=16,
            shards=4,
        ),
        loss=loss,
        mesh=Mesh(data=-1, fsdp=1),
        optim=optim,
        checkpoint=Checkpoint(every=STEPS, keep=1),
        export=Export(dtype="float32"),
    )


def scores(model: Path, task: Path) -> dict[str, float]:
    """nDCG@10 of whole vectors, of an eighth of the dimensions, and of bits: against bits, and in the order of float queries."""
    from e5jax.data.beir import read_retrieval
    from e5jax.eval.quantization_study import DEPTH, embed, score
    from e5jax.inference import rescore
    from e5jax.inference.embedder import Embedder
    from e5jax.inference.vector_quantization import Store, shortened

    vectors = embed(Embedder.from_pretrained(model), read_retrieval(task), "")
    bits = Store.of(vectors.documents, "binary")
    short = Store.of(shortened(vectors.documents, SHORT), "float32")
    return {
        "whole": score(
            vectors,
            rescore.first_stage(vectors.queries, Store.of(vectors.documents, "float32"), DEPTH)[1],
        ),
        "short": score(
            vectors, rescore.first_stage(shortened(vectors.queries, SHORT), short, DEPTH)[1]
        ),
        "bits": score(vectors, rescore.first_stage(vectors.queries, bits, DEPTH)[1]),
        "rescored": score(vectors, rescore.search(vectors.queries, bits, DEPTH)[1]),
    }


if __name__ == "__main__":
    main()
