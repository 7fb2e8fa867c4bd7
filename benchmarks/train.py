"""Training speed beside sentence-transformers + PEFT: one Mistral, the same weights, pairs, batch and precision.

.venv/bin/python benchmarks/train.py [--setting=cpu] [--rounds=5] [--batches=4] [--pairs=64] [--output=FILE]

`cpu`: width 384, 6 layers, 6 heads, 2 key heads, ff 1024, float32, two threads. `gpu`: the shape of Mistral-7B but for its
vocabulary, bfloat16 with float32 adapters, on one GPU of 80 GB. Both: LoRA 16 on all maps, texts of the quickstart cut at 512
tokens, no GradCache for us. The two sides live in processes of their own and take turns; a GPU has room for one at a time, and
they follow each other. The peer is timed at the fastest of its ways (attention, and where a batch does not fit into memory
gradient checkpointing or CachedMultipleNegativesRankingLoss), without and with grouping of a round's pairs by length, its texts
tokenised in advance. Grouping puts texts of like length into one batch, which changes what a batch's negatives are; ours need not.
Both sides allocate as the environment says: huge pages (GLIBC_TUNABLES=glibc.malloc.hugetlb=1, as launch/train.sh has them) or
another allocator (LD_PRELOAD) go before the command.

Floor: `model_flops_per_step` at the rate of a matrix product, the better of a cube and the model's own, taken in the same round.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sides import Side, product_rates, take_turns

from e5jax.config import (
    Batch,
    Data,
    Dtype,
    Export,
    Harvest,
    Lora,
    Mesh,
    Model,
    Optim,
    Scratch,
    Tokens,
    Training,
)

LIMIT = 512  # tokens a text
CACHED = 16  # texts that the peer encodes at a time where it caches gradients


class Setting(NamedTuple):
    """What is trained, and where."""

    sizes: Scratch
    dtype: Dtype
    device: str  # of the peer, as torch calls it
    ways: tuple[str, ...]  # of the peer: attention, and how it makes do with its memory
    rows: int  # a chunk of ours
    shards: int
    kept_tokens: int
    cube: int  # side of the product whose rate is taken
    together: bool  # both sides fit


SETTINGS = {
    "cpu": Setting(
        Scratch(hidden=384, ff=1_024, layers=6, heads=6, kv_heads=2, head_size=64),
        "float32", "cpu", ("sdpa plain", "eager plain"), 2, 2, 16_384, 2_048, True,
    ),
    "gpu": Setting(
        Scratch(hidden=4_096, ff=14_336, layers=32, heads=32, kv_heads=8, head_size=128),
        "bfloat16", "cuda", ("sdpa checkpointing", "sdpa cached"), 28, 1, 28 * LIMIT, 8_192, False,
    ),
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--setting", choices=tuple(SETTINGS), default="cpu")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--batches", type=int, default=4)
    options.add_argument("--pairs", type=int, default=64)
    take_turns(options, {"ours": Ours, "peer": Peer}, prepare, compare, show)


def training(
    pairs: int, lora: Lora | None, setting: Setting, scratch: Scratch | None = None
) -> Training:
    """The run both sides do."""
    rows, width = setting.rows, LIMIT
    return Training(
        data=Data(files=("train.jsonl",), instructions=False),
        tokens=Tokens(limit=LIMIT),
        model=Model(base="" if scratch else "base", scratch=scratch, dtype=setting.dtype, remat="attention"),
        lora=lora,
        batch=Batch(
            pairs, 0, chunks=-(-2 * pairs // rows), kept_chunks=setting.kept_tokens // width // rows, unrolled=True,
            texts_a_row=32, shards=setting.shards,
        ),
        optim=Optim(learning_rate=1e-4, steps=10_000, warmup_steps=0),
        mesh=Mesh(-1, 1, 1),
        export=Export(dtype=setting.dtype),
    )  # fmt: skip


# --- what both sides start from --------------------------------------------------------------------------------


def prepare(args: argparse.Namespace) -> None:
    """Pairs of the quickstart, a tokenizer and a folder of random weights."""
    from e5jax.data.source import ExampleSource
    from e5jax.data.tokenizer import TextTokenizer, train_tokenizer
    from e5jax.datasets.docstring_pairs import harvest
    from e5jax.export.folder import export_untrained
    from e5jax.train.inputs import scratch_spec

    setting, file = SETTINGS[args.setting], args.work / "tokenizer.json"
    if not file.is_file():
        harvest(Harvest(), args.work)
        source = ExampleSource([args.work / "train.jsonl"])
        texts = (
            text for i in range(len(source)) for text in (source[i].query, source[i].positives[0])
        )
        train_tokenizer(texts, 8_192).save(str(file))
    scratch = training(args.pairs, None, setting, replace(setting.sizes, layers=1))
    export_untrained(
        scratch,
        scratch_spec(scratch, file),
        TextTokenizer.from_file(file, 1, 2, LIMIT),
        args.work / "base",
    )
    repeat(args.work / "base", setting.sizes.layers)


def repeat(base: Path, layers: int) -> None:
    """Makes the only layer of this folder `layers` equal ones: random numbers for 7B take longer than training on them."""
    from safetensors.torch import load_file, save_file

    first, places = "model.layers.0.", {}
    tensors = load_file(base / "model.safetensors")
    prefix = first if any(name.startswith(first) for name in tensors) else "layers.0."
    rest = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    for number in range(layers):
        own = {
            name.replace(".0.", f".{number}.", 1): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        own, name = (
            own | (rest if number == 0 else {}),
            f"model-{number + 1:05d}-of-{layers:05d}.safetensors",
        )
        save_file(own, base / name, {"format": "pt"})
        places |= dict.fromkeys(own, name)
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8"
    )
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(
        json.dumps(config | {"num_hidden_layers": layers}), encoding="utf-8"
    )


# --- our side --------------------------------------------------------------------------------------------------


class Ours:
    """Packed rows, one compiled step."""

    def __init__(self, args: argparse.Namespace):
        import jax

        from e5jax.data.batches import batches_of
        from e5jax.data.tokenizer import TextTokenizer
        from e5jax.mesh import make_mesh, open_cpu
        from e5jax.model import hf_weights
        from e5jax.model.families import read_spec
        from e5jax.train import state
        from e5jax.train.build import abstract_arguments, build_step, put_batch

        self.setting = SETTINGS[args.setting]
        run, base = (
            training(args.pairs, Lora(rank=16, alpha=32.0, dropout=0.0), self.setting),
            args.work / "base",
        )
        open_cpu([run])
        spec, self.mesh = read_spec(base), make_mesh(run.mesh)
        self.learner = build_step(run, spec, jax.devices()[0].platform)
        made = self.learner.model_def
        tokenizer = TextTokenizer.from_file(base / "tokenizer.json", spec.bos, spec.eos, LIMIT)
        batches = batches_of([args.work / "train.jsonl"], tokenizer, run)
        self.host = [batches[i] for i in range(args.batches)]
        with jax.set_mesh(self.mesh):
            self.frozen = hf_weights.load(
                base, spec, made.abstract(made.frozen, self.mesh, run.model.dtype)
            )
            trained = made.initialise(made.trained, self.mesh, 0)
            self.state = state.fresh(trained, self.learner.optimiser, self.mesh)
            self.batches = [put_batch(batch, self.mesh) for batch in self.host]
            self.step = self.learner.step.lower(
                *abstract_arguments(run, self.learner, self.mesh)
            ).compile()

    def facts(self) -> dict:
        """Tokens and model FLOPs of a round, and what the device could do at best by its maker's word."""
        import jax

        from e5jax.hardware import CHIPS
        from e5jax.train.flops import model_flops

        real = sum(int(np.sum(batch.segments > 0)) for batch in self.host)
        active = sum(
            int(np.any(batch.ends >= 0, axis=(1, 2)).sum()) * batch.tokens[0].size
            for batch in self.host
        )
        last = [
            np.take_along_axis(batch.positions, np.maximum(batch.ends, 0), -1)[batch.ends >= 0]
            for batch in self.host
        ]
        squares = float(np.sum((np.concatenate(last).astype(np.float64) + 1) ** 2))
        device = jax.devices()[0].device_kind
        published = CHIPS[device].flops if device in CHIPS else None
        flops = model_flops(self.learner.model_def, real, squares)
        return {
            "tokens": real,
            "computed": active,
            "flops": flops,
            "device": device,
            "published": published,
        }

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
        """FLOP/s of products: a cube and the model's own on the tokens of a chunk."""
        tokens, sizes, cube = self.setting.rows * LIMIT, self.setting.sizes, self.setting.cube
        own = {"gate": (tokens, sizes.hidden, sizes.ff), "down": (tokens, sizes.ff, sizes.hidden)}
        return product_rates({f"{cube}³": (cube,) * 3} | own, self.setting.dtype)


# --- the peer --------------------------------------------------------------------------------------------------


class Peer:
    """sentence-transformers with a PEFT adapter; texts padded to the longest of their side of the batch."""

    def __init__(self, args: argparse.Namespace):
        import torch

        self.setting = SETTINGS[args.setting]
        torch.set_num_threads(os.cpu_count() or 1)
        from e5jax.data.batches import batches_of
        from e5jax.data.tokenizer import TextTokenizer

        run = training(
            args.pairs, Lora(rank=16, alpha=32.0, dropout=0.0), self.setting._replace(shards=1)
        )  # see `unpack`
        tokenizer = TextTokenizer.from_file(args.work / "tokenizer.json", 1, 2, LIMIT)
        batches = batches_of([args.work / "train.jsonl"], tokenizer, run)
        pairs = [
            pair for i in range(args.batches) for pair in zip(*unpack(batches[i]), strict=True)
        ]
        grouped = sorted(pairs, key=lambda pair: len(pair[1]))
        self.batches = {
            False: split(pairs, args.pairs, self.setting),
            True: split(grouped, args.pairs, self.setting),
        }
        self.model, self.optimiser = build(args.work / "base", self.setting)

    def facts(self) -> dict:
        """Tokens that padding makes of each arrangement."""
        return {
            name: sum(
                int(side["input_ids"].numel()) for batch in self.batches[grouped] for side in batch
            )
            for name, grouped in [("padded", False), ("padded_grouped", True)]
        }

    def round(self, wanted: dict) -> dict:
        """Every batch once; no seconds when memory runs out."""
        import torch

        loss_of = self.losses(*wanted["way"].split())
        start, losses = time.perf_counter(), []
        try:
            for sides in self.batches[wanted["grouped"]]:
                with torch.autocast(
                    self.setting.device, torch.bfloat16, enabled=self.setting.dtype == "bfloat16"
                ):
                    loss = loss_of([dict(side) for side in sides], labels=None)
                loss.backward()
                self.optimiser.step()
                self.optimiser.zero_grad()
                losses.append(loss.detach())
            losses = [float(loss) for loss in losses]
        except torch.OutOfMemoryError:
            return {"seconds": None, "loss": None}
        return {"seconds": time.perf_counter() - start, "loss": losses[0]}

    def losses(self, attention: str, memory: str) -> Any:
        """The loss on the model made so."""
        from sentence_transformers.sentence_transformer.losses import (
            CachedMultipleNegativesRankingLoss,
            MultipleNegativesRankingLoss,
        )

        decoder = self.model[0].auto_model
        decoder.set_attn_implementation(attention)
        if memory == "checkpointing":
            decoder.gradient_checkpointing_enable({"use_reentrant": False})
        else:
            decoder.gradient_checkpointing_disable()
        if memory == "cached":
            return CachedMultipleNegativesRankingLoss(
                self.model, scale=1 / 0.02, mini_batch_size=CACHED
            )
        return MultipleNegativesRankingLoss(self.model, scale=1 / 0.02)


def unpack(batch) -> tuple[list[list[int]], list[list[int]]]:
    """(queries, passages) of a batch of one shard, as ids."""
    slots = batch.ends.shape[-1]
    tokens, segments = (part.reshape(-1, part.shape[-1]) for part in (batch.tokens, batch.segments))

    def text(place: int) -> list[int]:
        row, slot = divmod(int(place), slots)
        return tokens[row][segments[row] == slot + 1].tolist()

    return [text(place) for place in batch.queries[0]], [text(place) for place in batch.passages[0]]


def split(pairs: list, size: int, setting: Setting) -> list:
    """Batches of padded tensors: [queries, passages] each."""
    import torch

    def pad(texts: tuple[list[int], ...]) -> dict:
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(text) for text in texts], batch_first=True, padding_value=2
        )
        lengths = torch.tensor([len(text) for text in texts])
        made = {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1])[None] < lengths[:, None]).long(),
        }
        return {name: part.to(setting.device) for name, part in made.items()}

    return [
        [pad(side) for side in zip(*pairs[i : i + size], strict=True)]
        for i in range(0, len(pairs), size)
    ]


def build(folder: Path, setting: Setting) -> tuple:
    """(model, optimiser)."""
    import peft
    import torch
    from sentence_transformers import SentenceTransformer

    kwargs = {
        "attn_implementation": setting.ways[0].split()[0],
        "dtype": getattr(torch, setting.dtype),
    }
    model = SentenceTransformer(
        str(folder), model_kwargs=kwargs, local_files_only=True, device=setting.device
    )
    maps = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    model[0].auto_model.add_adapter(
        peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=maps)
    )
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1e-4)


# --- taking turns ----------------------------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> dict:
    """All figures."""
    setting = SETTINGS[args.setting]
    settings = [f"--{key}={getattr(args, key)}" for key in ("setting", "batches", "pairs", "work")]
    ours = Side(__file__, "ours", settings, setting.device)
    first, _ = ours("round")["loss"], ours("round")  # rounds that do not count
    rounds = []
    if not setting.together:
        rounds = [{"ours": ours("round")["seconds"], **ours("rate")} for _ in range(args.rounds)]
        ours.close()
    peer = Side(__file__, "peer", settings, setting.device)
    trials = []
    peer_first = peer("round", way=setting.ways[0], grouped=False)[
        "loss"
    ]  # and pays for more than itself
    for way, grouped in itertools.product(setting.ways, (False, True)):
        trials.append({"way": way, "grouped": grouped, **peer("round", way=way, grouped=grouped)})
        print("peer, {way}, grouped {grouped}: {seconds} s".format(**trials[-1]), flush=True)
    fits = [trial for trial in trials if trial["seconds"]]
    fastest = {
        g: min((t for t in fits if t["grouped"] is g), key=lambda t: t["seconds"])["way"]
        for g in (False, True)
    }
    for number in range(args.rounds):
        times = {
            name: peer("round", way=fastest[g], grouped=g)["seconds"]
            for name, g in (("peer", False), ("grouped", True))
        }
        if setting.together:
            ours(
                "round"
            )  # it has slept for a minute, after which one takes up to half as long again; the peer has not
            rounds.append({"ours": ours("round")["seconds"], **ours("rate")})
        rounds[number] |= times
        shown = ", ".join(f"{name} {rounds[number][name]:.2f} s" for name in ("ours", *times))
        print(f"round {number + 1}: {shown}", flush=True)
    return {
        "cores": os.cpu_count(),
        "pairs_a_round": args.pairs * args.batches,
        "first_loss": {"ours": first, "peer": peer_first},
        "tokens": ours.facts | peer.facts,
        "peer_trials": trials,
        "peer_fastest": {"ungrouped": fastest[False], "grouped": fastest[True]},
        "rounds": rounds,
    } | summary(ours.facts, rounds, args)


def summary(facts: dict, rounds: list[dict], args: argparse.Namespace) -> dict:
    """Medians, and the fraction of the floor."""
    pairs = args.pairs * args.batches
    # Of each round its own: from minute to minute a shared machine's rate moves by a fifth.
    rates = [
        1e9 * max(value for key, value in r.items() if key not in ("ours", "peer", "grouped"))
        for r in rounds
    ]
    peak = facts["published"]
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
        "fraction_of_floor": {
            "median": statistics.median(fractions),
            "min": min(fractions),
            "max": max(fractions),
        },
        "utilisation": peak
        and statistics.median(facts["flops"] / r["ours"] / peak for r in rounds),
        "real_token_share": facts["tokens"] / facts["computed"],
    }


def show(found: dict) -> None:
    """The table."""
    tokens, fraction = found["tokens"], found["fraction_of_floor"]
    ratios = [
        (name, found[key])
        for name, key in (("without grouping", "ratio"), ("with grouping", "ratio_grouped"))
    ]
    shares = " / ".join(
        f"{tokens['tokens'] / tokens[k]:.1%}" for k in ("computed", "padded", "padded_grouped")
    )
    lines = [
        ("first loss, ours / peer", f"{found['first_loss']['ours']:.5f} / {found['first_loss']['peer']:.5f}"),
        ("real tokens, ours / peer / peer grouped", shares),
        ("peer at its faster", ", ".join(f"{name}: {kind}" for name, kind in found["peer_fastest"].items())),
        ("pairs/s, ours / peer", f"{found['ours_pairs_a_second']:.2f} / {found['peer_pairs_a_second']:.2f}"),
        *((f"ratio {name}, median (min – max)", f"{r['median']:.2f} ({r['min']:.2f} – {r['max']:.2f})") for name, r in ratios),
        ("product rate, GFLOP/s, median / best round", "{median:.0f} / {max:.0f}".format(**found["product_gflops"])),
        ("fraction of the floor, median (min – max)", f"{fraction['median']:.1%} ({fraction['min']:.1%} – {fraction['max']:.1%})"),
    ]  # fmt: skip
    if found["utilisation"]:
        lines.append((f"of the published rate, {tokens['device']}", f"{found['utilisation']:.1%}"))
    for name, value in lines:
        print(f"{name:<46}{value}")


if __name__ == "__main__":
    main()
