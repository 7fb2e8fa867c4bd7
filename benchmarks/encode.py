"""Encoding beside sentence-transformers: one folder, the same texts, float32, on a CPU; both take turns.

.venv/bin/python benchmarks/encode.py [--texts=10000] [--queries=2000] [--rounds=3] [--model=DIR] [--output=FILE]

Texts are docstrings and functions harvested from the installed packages, cut at 512 tokens; queries are the first words
of docstrings behind an instruction of 60 tokens. The model is that of benchmarks/train.py, of random weights, or a folder.
The peer sorts by length, at the fastest of two attentions and three batch sizes; both sides tokenise inside what is timed.

Floor: the model's FLOPs on the real tokens (of queries: those behind the instruction alone, as it need not be encoded twice)
at the rate of a matrix product, the better of 2048³ and the model's own, taken in the same round.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
from sides import Side, product_rates, take_turns
from train import LIMIT, SIZES, prepare

WORDS = 8  # of a query
TASK = (
    "Given what a function of a large library of programs is said to do, in a few words and without its name or the names of "
    "its arguments, find the function itself, whole and in the language that it was written in, whatever else is beside it"
)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--texts", type=int, default=10_000)
    options.add_argument("--queries", type=int, default=2_000)
    options.add_argument("--rounds", type=int, default=3)
    options.set_defaults(pairs=64)  # of the folder that `prepare` makes
    options.add_argument("--model", type=Path)
    take_turns(options, {"ours": Ours, "peer": Peer}, prepare, compare, show)


def texts_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """The two sets of texts."""
    lines = (
        (args.work / "train.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()[: max(args.texts // 2, args.queries)]
    )
    records = [json.loads(line) for line in lines]
    pairs = [
        text
        for record in records[: args.texts // 2]
        for text in (record["query"], record["positives"][0])
    ]
    return {
        "texts": pairs,
        "queries": [" ".join(r["query"].split()[:WORDS]) for r in records[: args.queries]],
    }


class Ours:
    """`Embedder.encode`."""

    def __init__(self, args: argparse.Namespace):
        from e5jax.inference.embedder import Embedder
        from e5jax.mesh import open_cpu

        open_cpu([])
        self.texts = texts_of(args)
        self.model = Embedder.from_pretrained(args.model or args.work / "base")
        self.shapes = {
            "2048³": (2_048,) * 3,
            "gate": (2_048, 384, 1_024),
            "down": (2_048, 1_024, 384),
        }

    def facts(self) -> dict:
        """Tokens and FLOPs of each set."""
        tokens = {
            name: np.array(
                [
                    len(ids)
                    for ids in self.model.tokenize(texts, TASK if name == "queries" else None)
                ]
            )
            for name, texts in self.texts.items()
        }
        asked = np.array(
            [
                ids[: tokens["queries"].min()]
                for ids in self.model.tokenize(self.texts["queries"], TASK)
            ]
        )
        start = int(np.argmin(np.append((asked == asked[0]).all(axis=0), False)))
        own = {**tokens, "queries": tokens["queries"] - start}
        # The forward pass is a third of what training all parameters takes; a query's tokens see the instruction's too.
        kernels = (
            2 * SIZES.hidden * SIZES.head_size * (SIZES.heads + SIZES.kv_heads)
            + 3 * SIZES.hidden * SIZES.ff
        )
        attention = 4 * SIZES.layers * SIZES.heads * SIZES.head_size
        flops = {
            name: 2 * SIZES.layers * kernels * int(own[name].sum())
            + attention * int((tokens[name] ** 2 - (tokens[name] - own[name]) ** 2).sum()) / 2
            for name in tokens
        }
        return {
            "tokens": {name: int(each.sum()) for name, each in tokens.items()},
            "instruction": start,
            "flops": flops,
        }

    def encode(self, wanted: dict) -> dict:
        """A set, once."""
        start = time.perf_counter()
        vectors = self.model.encode(
            self.texts[wanted["name"]], TASK if wanted["name"] == "queries" else None
        )
        return {"seconds": time.perf_counter() - start, "head": vectors[:20].tolist()}

    def rate(self, _: dict) -> dict:
        """GFLOP/s of products."""
        return product_rates(self.shapes)


class Peer:
    """`SentenceTransformer.encode`."""

    def __init__(self, args: argparse.Namespace):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(os.cpu_count() or 1)
        self.texts = texts_of(args)
        self.models = {}
        for attention in ("sdpa", "eager"):
            kwargs = {"attn_implementation": attention, "dtype": torch.float32}
            folder = str(args.model or args.work / "base")
            self.models[attention] = SentenceTransformer(
                folder, model_kwargs=kwargs, local_files_only=True, device="cpu"
            )
            self.models[attention].max_seq_length = LIMIT

    def facts(self) -> dict:
        """Nothing to say."""
        return {}

    def encode(self, wanted: dict) -> dict:
        """A set, or its first texts, once."""
        texts = self.texts[wanted["name"]][: wanted.get("most")]
        prompt = f"Instruct: {TASK}\nQuery: " if wanted["name"] == "queries" else None
        start = time.perf_counter()
        vectors = self.models[wanted["attention"]].encode(
            texts, batch_size=wanted["batch"], prompt=prompt
        )
        return {"seconds": time.perf_counter() - start, "head": vectors[:20].tolist()}


def compare(args: argparse.Namespace) -> dict:
    """All figures."""
    settings = [f"--{key}={getattr(args, key)}" for key in ("texts", "queries", "work")]
    settings += [f"--model={args.model}"] if args.model else []
    ours, peer = Side(__file__, "ours", settings), Side(__file__, "peer", settings)
    fastest, trials = {}, []
    for name in ("texts", "queries"):
        for attention in ("sdpa", "eager"):
            for batch in (16, 32, 128):
                setting = {"name": name, "attention": attention, "batch": batch}
                peer("encode", most=128, **setting)
                trials.append(setting | {"seconds": peer("encode", most=640, **setting)["seconds"]})
        best = min(
            (trial for trial in trials if trial["name"] == name), key=lambda trial: trial["seconds"]
        )
        fastest[name] = {key: best[key] for key in ("attention", "batch")}
        ours("encode", name=name)
    rounds = []
    for number in range(args.rounds):
        found = {"rate": max(ours("rate").values())}
        for name in ("texts", "queries"):
            mine, theirs = ours("encode", name=name), peer("encode", name=name, **fastest[name])
            worst = min(np.sum(np.array(mine["head"]) * np.array(theirs["head"]), axis=1))
            found[name] = {
                "ours": mine["seconds"],
                "peer": theirs["seconds"],
                "worst_cosine": float(worst),
            }
            print(
                f"round {number + 1}, {name}: ours {mine['seconds']:.2f} s, peer {theirs['seconds']:.2f} s",
                flush=True,
            )
        rounds.append(found)
    return {"facts": ours.facts, "trials": trials, "fastest": fastest, "rounds": rounds} | {
        name: summary(ours.facts, rounds, name) for name in ("texts", "queries")
    }


def summary(facts: dict, rounds: list[dict], name: str) -> dict:
    """Medians over the rounds."""
    ratios = [found[name]["peer"] / found[name]["ours"] for found in rounds]

    def fraction(side: str) -> float:
        return statistics.median(
            facts["flops"][name] / 1e9 / found["rate"] / found[name][side] for found in rounds
        )

    return {
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "fraction": {side: fraction(side) for side in ("ours", "peer")},
        "seconds": {
            side: statistics.median(found[name][side] for found in rounds)
            for side in ("ours", "peer")
        },
        "worst_cosine": min(found[name]["worst_cosine"] for found in rounds),
    }


def show(found: dict) -> None:
    """The table."""
    for name in ("texts", "queries"):
        one, peer = found[name], found["fastest"][name]
        print(
            f"{name}: {found['facts']['tokens'][name]:,} tokens; the peer with {peer['attention']}, {peer['batch']} a batch"
        )
        print("  seconds {ours:.2f} / {peer:.2f}".format(**one["seconds"]))
        print("  ratio {median:.2f} ({min:.2f} – {max:.2f})".format(**one["ratio"]))
        print("  fraction of the floor {ours:.1%} / {peer:.1%}".format(**one["fraction"]))
        print(f"  worst cosine {one['worst_cosine']:.7f}")


if __name__ == "__main__":
    main()
