"""The loop: resumes bit for bit, stops on what is not finite, refuses what changed, logs one line a step."""

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import peft
import pytest
import torch
import transformers

from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.config import (
    TARGETS,
    Batch,
    Checkpoint,
    Data,
    Guard,
    Log,
    Lora,
    Mesh,
    Model,
    Optim,
    Scratch,
    Tokens,
    Training,
)
from e5jax.data.batches import BatchBuilder, Selected
from e5jax.data.packing import digest
from e5jax.data.records import Batch as Rows
from e5jax.data.records import Example, Metrics, parse_example
from e5jax.data.tokenizer import train_tokenizer
from e5jax.distributed.coordination import Process
from e5jax.errors import ConfigError, RunError, StoppedError
from e5jax.export.folder import export_untrained
from e5jax.mesh import make_mesh
from e5jax.train import loop, skipped
from e5jax.train.build import abstract_arguments, build_step
from e5jax.train.inputs import Inputs, fingerprint, read_inputs
from e5jax.train.state import State
from e5jax.workdir.directory import Workdir
from tests import tiny

WORDS = [
    "read",
    "write",
    "open",
    "close",
    "parse",
    "file",
    "header",
    "line",
    "token",
    "model",
    "batch",
    "step",
    "loss",
    "rate",
]
STEPS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A tokenizer, 40 examples, and a base folder of random weights."""
    root = tmp_path_factory.mktemp("loop")
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 6)) for _ in range(120)]
    train_tokenizer(texts, 300).save(str(root / "tokenizer.json"))
    examples = [
        Example(str(i), texts[i], (texts[40 + i],), (texts[80 + i],), "find it") for i in range(40)
    ]
    (root / "train.jsonl").write_text("".join(example.to_json() + "\n" for example in examples))
    scratch = scratch_run(root)
    inputs = read_inputs(scratch, scratch.data.files, Path(scratch.tokens.tokenizer), "")
    export_untrained(scratch, inputs.spec, inputs.tokenizer, root / "base")
    return root


def scratch_run(root: Path) -> Training:
    return Training(
        data=Data(files=(str(root / "train.jsonl"),)),
        tokens=Tokens(tokenizer=str(root / "tokenizer.json"), limit=16),
        model=Model(
            scratch=Scratch(hidden=32, ff=64, layers=2, heads=4, kv_heads=2, head_size=8),
            dtype="float32",
        ),
        batch=Batch(queries=8, negatives=1, chunks=2, shards=4),
        optim=Optim(learning_rate=1e-2, steps=STEPS, warmup_steps=1),
        mesh=Mesh(data=2, fsdp=2, tensor=2),
        checkpoint=Checkpoint(every=2, keep=9),
        log=Log(tensorboard=False),
    )


def lora_run(root: Path) -> Training:
    run = scratch_run(root)
    run.model.base, run.model.scratch, run.tokens.tokenizer = str(root / "base"), None, ""
    run.lora = Lora(rank=4, alpha=8.0, dropout=0.1)
    return run


def int8_run(root: Path) -> Training:
    run = lora_run(root)
    run.model.quantisation = "int8"
    return run


RUNS = {"full": scratch_run, "lora": lora_run, "int8": int8_run}


def inputs_for(run: Training) -> Inputs:
    return read_inputs(
        run,
        run.data.files,
        Path(run.tokens.tokenizer) if run.tokens.tokenizer else None,
        run.model.base,
    )


def state_of(run: Training, workdir: Path, step: int) -> str:
    """SHA-256 over every leaf of a checkpoint: parameters, moments, counters."""
    inputs = inputs_for(run)
    mesh = make_mesh(run.mesh)
    with jax.set_mesh(mesh), Checkpoints(workdir / "checkpoints") as checkpoints:
        wanted, _, _ = abstract_arguments(run, build_step(run, inputs.spec, "cpu"), mesh)
        state = loop.restore(checkpoints, step, wanted)
    assert isinstance(state, State)
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


class KilledError(Exception):
    """Stands for the end of the process at a step boundary."""


def train_and_die(step: int, run: Training, inputs: Inputs, workdir: Path) -> None:
    """As soon as that checkpoint is begun."""
    real = loop.save

    def save_then_die(checkpoints, number, *rest):
        real(checkpoints, number, *rest)
        if number == step:
            raise KilledError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "save", save_then_die)
        with pytest.raises(KilledError):
            loop.train(run, inputs, Workdir(workdir), "parts")


@pytest.mark.parametrize("kind", RUNS)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(kind, place, tmp_path):
    run = RUNS[kind](place)
    loop.train(run, inputs_for(run), Workdir(tmp_path / "whole"), kind)

    train_and_die(4, run, inputs_for(run), tmp_path / "parts")
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1, 2, 3, 4]
    assert loop.train(run, inputs_for(run), Workdir(tmp_path / "parts"), kind) == STEPS - 4

    assert state_of(run, tmp_path / "parts", STEPS) == state_of(run, tmp_path / "whole", STEPS)
    assert state_of(run, tmp_path / "parts", STEPS) != state_of(run, tmp_path / "parts", 4)
    first, second = rows(tmp_path / "whole"), rows(tmp_path / "parts")
    assert [row["step"] for row in second] == list(range(1, STEPS + 1))
    assert [row["train/loss"] for row in second] == [row["train/loss"] for row in first]
    hashes = [digest(inputs_for(run).batches[number]) for number in range(STEPS)]
    assert [row["batch"] for row in second] == [row["batch"] for row in first] == hashes
    assert len(set(hashes)) == STEPS


def test_a_run_that_is_told_to_stop_saves_this_step_and_goes_on_from_it(
    place, tmp_path, monkeypatch
):
    run = scratch_run(place)
    run.checkpoint.every = 100
    loop.train(run, inputs_for(run), Workdir(tmp_path / "whole"), "whole")
    put, batches, process = loop.put_batch, [], Process()

    def place_and_tell(batch, mesh):
        batches.append(batch)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            while not process.signals.received:
                time.sleep(0.001)
        return put(batch, mesh)

    monkeypatch.setattr(loop, "put_batch", place_and_tell)
    with process.signals.listening(), pytest.raises(StoppedError):
        loop.train(run, inputs_for(run), Workdir(tmp_path / "parts"), "parts", process=process)
    monkeypatch.undo()
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1, 2, 3]
    assert loop.train(run, inputs_for(run), Workdir(tmp_path / "parts"), "parts") == STEPS - 3
    assert state_of(run, tmp_path / "parts", STEPS) == state_of(run, tmp_path / "whole", STEPS)


def test_a_checkpoint_says_what_made_it(place, tmp_path):
    run = scratch_run(place)
    run.optim.steps = 2
    inputs = inputs_for(run)
    loop.train(run, inputs, Workdir(tmp_path), "train")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        said = checkpoints.facts(2)
    assert said["identity"] == dict(inputs.identity)
    assert said["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}
    assert said["processes"] == 1
    assert said["versions"]["jax"] == jax.__version__
    assert re.fullmatch("[0-9a-f]{64}", said["config"])


def test_a_finished_run_has_nothing_left_to_do(place, tmp_path):
    run = scratch_run(place)
    run.optim.steps = 2
    assert loop.train(run, inputs_for(run), Workdir(tmp_path), "first") == 2
    assert loop.train(run, inputs_for(run), Workdir(tmp_path), "second") == 0


@pytest.mark.parametrize("changed", ["base", "data.train.files", "tokenizer"])
def test_a_changed_input_is_refused_by_name(changed, place, tmp_path):
    run = lora_run(place)
    run.optim.steps = 2
    inputs = inputs_for(run)
    loop.train(run, inputs, Workdir(tmp_path), "first")
    other = inputs._replace(identity={**inputs.identity, changed: "something else"})
    with pytest.raises(ConfigError, match=f"another {changed} .*--allow-change"):
        loop.train(run, other, Workdir(tmp_path), "second")


def test_a_changed_input_that_is_allowed_is_recorded_beside_the_run_and_in_its_checkpoints(
    place, tmp_path, capsys
):
    run, workdir = scratch_run(place), Workdir(tmp_path)
    run.optim.steps = 2
    inputs = inputs_for(run)
    loop.train(run, inputs, workdir, "first")
    run.optim.steps = 4
    other = inputs._replace(identity={**inputs.identity, "data.train.files": "changed"})
    assert loop.train(run, other, workdir, "second", allow=True) == 2
    (noted,) = [json.loads(line) for line in workdir.changes.read_text().splitlines()]
    assert (noted["step"], len(noted["changed"])) == (2, 1)
    assert re.fullmatch(r'data\.train\.files: "[0-9a-f]+…? -> "changed"', noted["changed"][0])
    assert f"recorded in {workdir.changes}" in capsys.readouterr().out
    with Checkpoints(workdir.checkpoints) as checkpoints:
        assert [checkpoints.facts(step)["changes"] for step in (2, 4)] == [[], [noted]]
        assert (
            checkpoints.check_identity(4, other.identity) == []
        )  # from here on it is what the run is trained with


class Odd(NamedTuple):
    """Makes the batches of a run, those of some steps with other temperatures: the one number that is in a batch."""

    real: BatchBuilder
    odd: dict[int, float]

    def __call__(self, step: int) -> Rows:
        batch = self.real(step)
        return batch._replace(
            temperatures=batch.temperatures * np.float32(self.odd.get(step + 1, 1))
        )

    def select(self, step: int) -> Iterator[Selected]:
        return self.real.select(step)


def odd_inputs(run: Training, odd: dict[int, float]) -> Inputs:
    inputs = inputs_for(run)
    return inputs._replace(batch_builder=Odd(inputs.batch_builder, odd))


def test_steps_that_are_skipped_leave_their_batch_and_a_resumed_run_skips_the_same(
    place, tmp_path, capsys
):
    run = scratch_run(place)
    run.guard = Guard(spike=50.0, window=2)
    run.optim.learning_rate = 1e-4  # else the loss of the first steps is no calm curve
    inputs = odd_inputs(run, {2: np.nan, 5: 1e-3})
    loop.train(run, inputs, Workdir(tmp_path / "whole"), "whole")
    train_and_die(4, run, inputs, tmp_path / "parts")
    assert loop.train(run, inputs, Workdir(tmp_path / "parts"), "parts") == STEPS - 4
    assert state_of(run, tmp_path / "parts", STEPS) == state_of(run, tmp_path / "whole", STEPS)

    for name in ("whole", "parts"):
        found = rows(tmp_path / name)
        assert [row["train/skipped"] for row in found] == [0, 1, 1, 1, 2, 2]
        assert [row["train/loss"] is None for row in found] == [
            row["step"] == 2 for row in found
        ]  # JSON has no NaN
        folder = tmp_path / name / "skipped"
        wanted = [f"{step}.{kind}" for step in (2, 5) for kind in ("json", "jsonl", "npz")]
        assert sorted(path.name for path in folder.iterdir()) == wanted
        for step in (2, 5):
            said = json.loads((folder / f"{step}.json").read_text())
            assert said["batch"] == found[step - 1]["batch"] == digest(inputs.batches[step - 1])
            assert ("not finite", "spike")[step == 5] in said["why"]
            examples = [
                parse_example(line, "here")
                for line in (folder / f"{step}.jsonl").read_text().splitlines()
            ]
            assert [example.id for example in examples] == [
                one.example.id for one in inputs.batch_builder.select(step - 1)
            ]
            with np.load(folder / f"{step}.npz", allow_pickle=False) as arrays:
                assert digest(Rows(**arrays)) == said["batch"]
    assert (
        "step 2: no update, loss=nan, gradient norm=nan: not finite; its batch is in"
        in capsys.readouterr().out
    )


def test_too_many_skipped_steps_in_a_row_end_the_run_and_going_on_does_not_start_the_count_anew(
    place, tmp_path
):
    run = lora_run(place)
    run.guard.skips = 3
    inputs = odd_inputs(run, dict.fromkeys(range(3, 9), np.nan))
    for _ in range(2):
        with pytest.raises(
            RunError,
            match=r"^steps 3 to 5: no update in 3 steps in a row .*loss=nan.* those of step 2,",
        ):
            loop.train(run, inputs, Workdir(tmp_path), "poisoned")
        assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            assert checkpoints.newest() == 4
    assert len(list((tmp_path / "skipped").glob("*.npz"))) == 3


def test_only_the_first_batches_are_kept(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(skipped, "MOST", 2)
    inputs = inputs_for(scratch_run(place))
    look = skipped.Skipped(tmp_path, Guard(), inputs.batch_builder)
    bad = Metrics(*[np.float32(0)] * len(Metrics._fields))._replace(in_a_row=np.int32(1))
    for number in (1, 2, 3, 2):
        look.look(number, inputs.batches[number - 1], "hash", bad)
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["1.npz", "2.npz"]
    assert ["not kept" in line for line in capsys.readouterr().out.splitlines()] == [
        False,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(("kernel", "platform"), [("cudnn", "gpu"), ("splash", "tpu")])
def test_a_kernel_of_other_hardware_is_refused(kernel, platform, place, tmp_path):
    run = scratch_run(place)
    run.model.attention = kernel
    with pytest.raises(
        ConfigError,
        match=f"config.model.attention='{kernel}' runs on a {platform} only.*use 'auto'",
    ):
        loop.train(run, inputs_for(run), Workdir(tmp_path), "train")


def test_the_run_says_which_kernel_was_chosen(place, tmp_path, capsys):
    run = scratch_run(place)
    assert run.model.attention == "auto"
    run.tokens.limit = 40
    loop.train(run, inputs_for(run), Workdir(tmp_path), "train")
    assert "attention blockwise" in capsys.readouterr().out


def test_a_base_of_integers_is_named_and_is_no_part_of_a_checkpoint(place, tmp_path, capsys):
    taken = {}
    for name, run in (("plain", lora_run(place)), ("integers", int8_run(place))):
        run.optim.steps = 2
        loop.train(run, inputs_for(run), Workdir(tmp_path / name), name)
        said = capsys.readouterr().out
        assert ("frozen (kernels int8)" in said) == (name == "integers")
        taken[name] = re.findall(r"[\d,]+ parameters, [\d,]+ frozen", said)
        with Checkpoints(tmp_path / name / "checkpoints") as checkpoints:
            made = build_step(run, inputs_for(run).spec, "cpu").model_def
            # What export reads, which knows nothing of integers: the adapters are all there is.
            plain = build_step(lora_run(place), inputs_for(run).spec, "cpu").model_def
            found = checkpoints.open_parameters(
                2, plain.abstract(plain.trained, make_mesh(run.mesh), "float32")
            )
            assert set(found) == set(made.trained)
    assert len(taken["plain"]) == 1
    assert taken["plain"] == taken["integers"]


def test_groups_that_the_base_does_not_fill_are_refused_before_anything_is_read(place):
    run = int8_run(place)
    run.model.quantisation = "int4"
    with pytest.raises(ConfigError, match=r"config\.model\.quantisation='int4'.*hidden=32"):
        inputs_for(run)


def test_every_step_is_logged_with_every_metric(place, tmp_path):
    run = scratch_run(place)
    run.optim.steps = 3
    loop.train(run, inputs_for(run), Workdir(tmp_path), "logged")
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [1, 2, 3]
    names = "loss accuracy gradient_norm learning_rate step_seconds pairs pairs_per_second real_tokens tokens_per_second"
    names += " real_token_share tflops_per_device model_flops_utilisation memory_bytes"
    for row in found:
        assert {f"train/{name}" for name in names.split()} <= set(row)
    assert found[0]["train/learning_rate"] == 0  # step 0 of the warm-up, as in transformers
    assert found[1]["train/learning_rate"] == pytest.approx(1e-2)


@pytest.mark.filterwarnings(tiny.PEFT_WARNING)
def test_an_adapter_of_peft_goes_on_in_training_from_its_numbers(place, tmp_path):
    model = peft.get_peft_model(
        transformers.AutoModel.from_pretrained(place / "base"),
        peft.LoraConfig(r=4, lora_alpha=8, target_modules=[f"{target}_proj" for target in TARGETS]),
    )
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    run = lora_run(place)
    run.model.base, run.lora, run.optim = (
        str(tmp_path / "adapter"),
        Lora(4, 8.0, 0.0),
        Optim(1e-4, steps=2, warmup_steps=1),
    )
    inputs = inputs_for(run)
    assert inputs.base == place / "base"
    assert inputs.identity["base"] not in (fingerprint(place / "base"), "")
    loop.train(run, inputs, Workdir(tmp_path), "more")
    made = build_step(run, inputs.spec, "cpu").model_def
    with jax.set_mesh(make_mesh(run.mesh)), Checkpoints(tmp_path / "checkpoints") as checkpoints:
        found = checkpoints.open_parameters(
            2, made.abstract(made.trained, make_mesh(run.mesh), "float32")
        )
    for name, layer, factor in tiny.adapters(made):
        start = tiny.peft_factor(model, name, layer, factor).detach().numpy().T
        moved = np.abs(np.asarray(found[f"{name}/{factor}"][layer]) - start).max()
        assert 0 < moved < 3e-4, name  # two steps of Adam, not another start


@pytest.mark.filterwarnings(tiny.PEFT_WARNING)
def test_without_lora_an_adapter_and_its_base_are_trained_as_one(place, tmp_path):
    run = lora_run(place)
    base = transformers.AutoModel.from_pretrained(place / "base")
    peft.get_peft_model(
        base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"])
    ).save_pretrained(tmp_path)
    run.model.base, run.lora = str(tmp_path), None
    inputs = inputs_for(run)
    assert (inputs.base, inputs.start) == (tmp_path, None)
    run.lora = Lora(rank=4, alpha=8.0)
    with pytest.raises(
        ConfigError, match=r"is an adapter with rank=4, alpha=8, targets=q, and config\.lora has"
    ):
        inputs_for(run)
