"""Training speed beside sentence-transformers + PEFT: one tiny Mistral, the same weights, pairs, batch and precision.

.venv/bin/python benchmarks/train.py [--rounds=5] [--batches=4] [--pairs=64] [--output=FILE]

Width 384, 6 layers, 6 heads, 2 key heads, ff 1024, LoRA 16 on all maps, float32, texts of the quickstart cut at 512 tokens,
no GradCache on either side, two threads. The two sides live in processes of their own and take turns. The peer is timed
at its faster of eager and sdpa attention, without and with grouping of a round's pairs by length, its texts tokenised in advance.
Grouping puts texts of like length into one batch, which changes what a batch's negatives are; ours need not.

Floor: `model_flops_per_step` at the rate of a matrix product, the better of 2048³ and the model's own, taken in the same round.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from sides import Side, product_rates, take_turns

from e5jax.config import Batch, Data, Export, Harvest, Lora, Mesh, Model, Optim, Scratch, Tokens, Training

LIMIT, ROWS, SHARDS, KEPT_TOKENS = 512, 2, 2, 16_384
SIZES = Scratch(hidden=384, ff=1_024, layers=6, heads=6, kv_heads=2, head_size=64)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--batches", type=int, default=4)
    options.add_argument("--pairs", type=int, default=64)
    take_turns(options, {"ours": Ours, "peer": Peer}, prepare, compare, show)


def training(pairs: int, lora: Lora | None, scratch: Scratch | None, shards: int = 1) -> Training:
    """The run both sides do."""
    return Training(
        data=Data(files=("train.jsonl",), instructions=False),
        tokens=Tokens(limit=LIMIT),
        model=Model(base="" if scratch else "base", scratch=scratch, dtype="float32", remat="attention"),
        lora=lora,
        batch=Batch(pairs, 0, chunks=2 * pairs // ROWS, kept_chunks=KEPT_TOKENS // LIMIT // ROWS, texts_a_row=32, shards=shards),
        optim=Optim(learning_rate=1e-4, steps=10_000, warmup_steps=0),
        mesh=Mesh(-1, 1, 1),
        export=Export(dtype="float32"),
    )


# --- what both sides start from --------------------------------------------------------------------------------


def prepare(args: argparse.Namespace) -> None:
    """Pairs of the quickstart, a tokenizer and a folder of random weights."""
    from e5jax.data.harvest import harvest
    from e5jax.data.source import ExampleSource
    from e5jax.data.vocabulary import train_tokenizer
    from e5jax.export.folder import export_untrained
    from e5jax.tokens import TextTokenizer
    from e5jax.train.inputs import scratch_spec

    harvest(Harvest(), args.work)
    source = ExampleSource([args.work / "train.jsonl"], 0)
    texts = (text for i in range(len(source)) for text in (source[i].query, source[i].positives[0]))
    file = args.work / "tokenizer.json"
    train_tokenizer(texts, 8_192).save(str(file))
    scratch = training(args.pairs, None, SIZES)
    export_untrained(scratch, scratch_spec(scratch, file), TextTokenizer.from_file(file, 1, 2, LIMIT), args.work / "base")


# --- our side --------------------------------------------------------------------------------------------------


class Ours:
    """Packed rows, one compiled step."""

    def __init__(self, args: argparse.Namespace):
        import jax

        from e5jax.data.batches import batches_of
        from e5jax.learner import state
        from e5jax.learner.assemble import abstract_arguments, assemble, place
        from e5jax.mesh import make_mesh, open_cpu
        from e5jax.model import hf
        from e5jax.model.families import read_spec
        from e5jax.tokens import TextTokenizer

        run, base = training(args.pairs, Lora(rank=16, alpha=32.0, dropout=0.0), None, SHARDS), args.work / "base"
        open_cpu([run])
        spec, self.mesh = read_spec(base), make_mesh(run.mesh)
        self.learner = assemble(run, spec, jax.devices()[0].platform)
        made = self.learner.blueprint
        tokenizer = TextTokenizer.from_file(base / "tokenizer.json", spec.bos, spec.eos, LIMIT)
        batches = batches_of([args.work / "train.jsonl"], tokenizer, run)
        self.host = [batches[i] for i in range(args.batches)]
        with jax.set_mesh(self.mesh):
            self.frozen = hf.load(base, spec, made.abstract(made.frozen, self.mesh, "float32"))
            trained = made.initialise(made.trained, self.mesh, 0)
            self.state = state.fresh(trained, self.learner.optimiser, self.mesh)
            self.batches = [place(batch, self.mesh) for batch in self.host]
            self.step = self.learner.step.lower(*abstract_arguments(run, self.learner, self.mesh)).compile()

    def facts(self) -> dict:
        """Tokens and model FLOPs of a round."""
        from e5jax.learner.flops import model_flops

        real = sum(int(np.sum(batch.segments > 0)) for batch in self.host)
        active = sum(int(np.any(batch.ends >= 0, axis=(1, 2)).sum()) * batch.tokens[0].size for batch in self.host)
        last = [np.take_along_axis(batch.positions, np.maximum(batch.ends, 0), -1)[batch.ends >= 0] for batch in self.host]
        squares = float(np.sum((np.concatenate(last).astype(np.float64) + 1) ** 2))
        return {"tokens": real, "computed": active, "flops": model_flops(self.learner.blueprint, real, squares)}

    def round(self, _: dict) -> dict:
        """Every batch once."""
        import jax

        with jax.set_mesh(self.mesh):
            start = time.perf_counter()
            losses = []
            for batch in self.batches:
                self.state, metrics = self.step(self.state, self.frozen, batch)
                losses.append(metrics.loss)
            losses = [float(loss) for loss in losses]
        return {"seconds": time.perf_counter() - start, "loss": losses[0]}

    def rate(self, _: dict) -> dict:
        """GFLOP/s of float32 products: 2048³ and the model's own on the tokens of a chunk."""
        tokens = ROWS * LIMIT
        return product_rates({"2048³": (2_048,) * 3, "gate": (tokens, 384, 1_024), "down": (tokens, 1_024, 384)})


# --- the peer --------------------------------------------------------------------------------------------------


class Peer:
    """sentence-transformers with a PEFT adapter; texts padded to the longest of their side of the batch."""

    def __init__(self, args: argparse.Namespace):
        import torch

        torch.set_num_threads(os.cpu_count() or 1)
        from e5jax.data.batches import batches_of
        from e5jax.tokens import TextTokenizer

        run = training(args.pairs, Lora(rank=16, alpha=32.0, dropout=0.0), None)
        tokenizer = TextTokenizer.from_file(args.work / "tokenizer.json", 1, 2, LIMIT)
        batches = batches_of([args.work / "train.jsonl"], tokenizer, run)
        pairs = [pair for i in range(args.batches) for pair in zip(*unpack(batches[i]), strict=True)]
        grouped = sorted(pairs, key=lambda pair: len(pair[1]))
        self.batches = {False: split(pairs, args.pairs), True: split(grouped, args.pairs)}
        self.models = {kind: build(args.work / "base", kind) for kind in ("sdpa", "eager")}

    def facts(self) -> dict:
        """Tokens that padding makes of each arrangement."""
        return {
            name: sum(int(side["input_ids"].numel()) for batch in self.batches[grouped] for side in batch)
            for name, grouped in [("padded", False), ("padded_grouped", True)]
        }

    def round(self, wanted: dict) -> dict:
        """Every batch once."""
        loss_of, optimiser = self.models[wanted["attention"]]
        start, losses = time.perf_counter(), []
        for sides in self.batches[wanted["grouped"]]:
            loss = loss_of([dict(side) for side in sides], labels=None)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
        return {"seconds": time.perf_counter() - start, "loss": losses[0]}


def unpack(batch) -> tuple[list[list[int]], list[list[int]]]:
    """(queries, passages) of a batch of one shard, as ids."""
    slots = batch.ends.shape[-1]
    tokens, segments = (part.reshape(-1, part.shape[-1]) for part in (batch.tokens, batch.segments))

    def text(place: int) -> list[int]:
        row, slot = divmod(int(place), slots)
        return tokens[row][segments[row] == slot + 1].tolist()

    return [text(place) for place in batch.queries[0]], [text(place) for place in batch.passages[0]]


def split(pairs: list, size: int) -> list:
    """Batches of padded tensors: [queries, passages] each."""
    import torch

    def pad(texts: tuple[list[int], ...]) -> dict:
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=2)
        lengths = torch.tensor([len(text) for text in texts])
        return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1])[None] < lengths[:, None]).long()}

    return [[pad(side) for side in zip(*pairs[i : i + size], strict=True)] for i in range(0, len(pairs), size)]


def build(folder: Path, attention: str) -> tuple:
    """(loss, optimiser)."""
    import peft
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    kwargs = {"attn_implementation": attention, "dtype": torch.float32}
    model = SentenceTransformer(str(folder), model_kwargs=kwargs, local_files_only=True, device="cpu")
    maps = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    model[0].auto_model.add_adapter(peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=maps))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    return MultipleNegativesRankingLoss(model, scale=1 / 0.02), torch.optim.AdamW(trained, lr=1e-4)


# --- taking turns ----------------------------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> dict:
    """All figures."""
    settings = [f"--{key}={getattr(args, key)}" for key in ("batches", "pairs", "work")]
    ours, peer = Side(__file__, "ours", settings), Side(__file__, "peer", settings)
    first = ours("round")["loss"]
    variants = [{"attention": a, "grouped": g} for a in ("sdpa", "eager") for g in (False, True)]
    trials = []
    for variant in variants:
        trials.append({**variant, **peer("round", **variant)})
        print(f"peer, {variant}: {trials[-1]['seconds']:.2f} s", flush=True)
    fastest = {g: min((t for t in trials if t["grouped"] is g), key=lambda t: t["seconds"])["attention"] for g in (False, True)}
    ours("round")  # each side has had a round that does not count
    rounds = []
    for number in range(args.rounds):
        times = {
            name: peer("round", attention=fastest[g], grouped=g)["seconds"] for name, g in (("peer", False), ("grouped", True))
        }
        rounds.append({"ours": ours("round")["seconds"]} | times | ours("rate"))
        print(f"round {number + 1}: " + ", ".join(f"{name} {rounds[-1][name]:.2f} s" for name in ("ours", *times)), flush=True)
    return {
        "cores": os.cpu_count(),
        "pairs_a_round": args.pairs * args.batches,
        "first_loss": {"ours": first, "peer": trials[0]["loss"]},
        "tokens": ours.facts | peer.facts,
        "peer_trials": trials,
        "peer_fastest": {"ungrouped": fastest[False], "grouped": fastest[True]},
        "rounds": rounds,
    } | summary(ours.facts, rounds, args)


def summary(facts: dict, rounds: list[dict], args: argparse.Namespace) -> dict:
    """Medians, and the fraction of the floor."""
    pairs = args.pairs * args.batches
    # Of each round its own: from minute to minute a shared machine's rate moves by a fifth.
    rates = [1e9 * max(value for key, value in r.items() if key not in ("ours", "peer", "grouped")) for r in rounds]
    fractions = [facts["flops"] / rate / r["ours"] for rate, r in zip(rates, rounds, strict=True)]

    def ratio(name: str) -> dict:
        found = [r[name] / r["ours"] for r in rounds]
        return {"median": statistics.median(found), "min": min(found), "max": max(found)}

    return {
        "ours_pairs_a_second": statistics.median(pairs / r["ours"] for r in rounds),
        "peer_pairs_a_second": statistics.median(pairs / r["peer"] for r in rounds),
        "ratio": ratio("peer"),
        "ratio_grouped": ratio("grouped"),
        "product_gflops": {"median": statistics.median(rates) / 1e9, "max": max(rates) / 1e9},
        "floor_seconds": facts["flops"] / max(rates),
        "fraction_of_floor": {"median": statistics.median(fractions), "min": min(fractions), "max": max(fractions)},
        "real_token_share": facts["tokens"] / facts["computed"],
    }


def show(found: dict) -> None:
    """The table."""
    tokens, fraction = found["tokens"], found["fraction_of_floor"]
    ratios = [(name, found[key]) for name, key in (("without grouping", "ratio"), ("with grouping", "ratio_grouped"))]
    shares = " / ".join(f"{tokens['tokens'] / tokens[k]:.1%}" for k in ("computed", "padded", "padded_grouped"))
    lines = [
        ("first loss, ours / peer", f"{found['first_loss']['ours']:.5f} / {found['first_loss']['peer']:.5f}"),
        ("real tokens, ours / peer / peer grouped", shares),
        ("peer at its faster", ", ".join(f"{name}: {kind}" for name, kind in found["peer_fastest"].items())),
        ("pairs/s, ours / peer", f"{found['ours_pairs_a_second']:.2f} / {found['peer_pairs_a_second']:.2f}"),
        *((f"ratio {name}, median (min – max)", f"{r['median']:.2f} ({r['min']:.2f} – {r['max']:.2f})") for name, r in ratios),
        ("product rate, GFLOP/s, median / best round", "{median:.0f} / {max:.0f}".format(**found["product_gflops"])),
        ("fraction of the floor, median (min – max)", f"{fraction['median']:.1%} ({fraction['min']:.1%} – {fraction['max']:.1%})"),
    ]  # fmt: skip
    for name, value in lines:
        print(f"{name:<46}{value}")


if __name__ == "__main__":
    main()
