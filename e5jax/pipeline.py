"""`e5jax run`: a config's stages one after the other, each skipped when its artifact is complete."""

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax

from e5jax.config import Config, Training
from e5jax.config.serialize import fields
from e5jax.data.batches import sample_lengths
from e5jax.data.source import ExampleSource
from e5jax.data.tokenizer import train_tokenizer
from e5jax.datasets.docstring_pairs import harvest
from e5jax.distributed.coordination import Process
from e5jax.distributed.heartbeat import READ
from e5jax.distributed.watchdog import Limits, Watchdog
from e5jax.errors import ConfigError
from e5jax.export.card import with_scores
from e5jax.export.folder import CHOICE, EXPORT, export, export_untrained
from e5jax.export.start import write_start
from e5jax.export.trained_model import Choice
from e5jax.mesh import open_cpu
from e5jax.model.folder import base_of, locate
from e5jax.storage import in_bucket
from e5jax.train.build import build_step
from e5jax.train.flops import parameters
from e5jax.train.inputs import Inputs, read_inputs
from e5jax.train.loop import train
from e5jax.train.run_record import claim, compare, trained_steps
from e5jax.versions import commit, versions
from e5jax.workdir import lock, outputs
from e5jax.workdir.directory import Workdir, atomic_output, write_text, writing

TOGETHER = ("pretrain", "train")  # stages that all processes work on
WORKING = 30 * 86_400.0  # seconds that process 0 may work alone
LOCK = ".lock"  # in the directory of a run


class Stage(NamedTuple):
    """One step of a run; `run` is called unless `done`."""

    name: str
    artifact: Path
    run: Callable[[], None]
    done: bool


class Start(NamedTuple):
    """How a run starts: whether changes are accepted, and what records them once it can resume."""

    allow: bool
    begin: Callable[[], None]
    process: Process


def run(
    config: Config,
    workdir: Workdir,
    only: str | None = None,
    process: Process | None = None,
    allow: bool = False,
) -> None:
    """Takes a run from where it is to its end; `only` names the one stage to do, `allow` goes on although something changed.

    Every process of a run calls this.
    """
    process = process or Process()
    runs = [config, config.pretrain] if config.pretrain else [config]
    open_cpu(runs, process.info.processes)
    slowest = max(made.checkpoint.seconds for made in runs)
    limits = Limits(
        config.watchdog.start,
        config.watchdog.step,
        config.watchdog.step + slowest,
        config.watchdog.silence,
    )
    with Watchdog(process, limits):
        if process.info.processes > 1:
            jax.devices()  # all open theirs together: one that does so alone, in a stage of its own, waits for the others for ever
        process.check_same({**versions(), **fields(config)})
        with _locked(workdir, process):
            if process.is_first:
                compare(workdir, config, allow)
                if not workdir.config.exists():
                    _begin(config, workdir, allow, process)
            start = Start(allow, partial(_begin, config, workdir, allow, process), process)
            names = (only,) if only else config.stages
            for number, name in enumerate(names, 1):
                _do(STAGES[name](config, workdir, start), f"[{number}/{len(names)}] {name}:", start)


@contextlib.contextmanager
def _locked(workdir: Workdir, process: Process) -> Iterator[None]:
    """Inside, no other process works on this run: process 0 holds its lock for all."""
    if not process.is_first:
        yield
        return
    workdir.root.mkdir(parents=True, exist_ok=True)
    with lock.hold(workdir.root / LOCK, f"--workdir={workdir.root}", "choose another --workdir"):
        yield


def _begin(config: Config, workdir: Workdir, allow: bool, process: Process) -> None:
    """Writes down what the run is. A run that goes on does so once that has begun: a start that fails changes nothing."""
    if process.is_first:
        claim(workdir, config, allow)
        write_text(
            workdir.versions, json.dumps({"commit": commit(), **versions()}, indent=2) + "\n"
        )


def _do(stage: Stage, head: str, start: Start) -> None:
    """A stage, by all processes or by the first one alone, while the others wait."""
    is_complete = start.process.agree("done", lambda: stage.done)
    if start.process.is_first:
        print(
            f"{head} complete, nothing to do ({stage.artifact})"
            if is_complete
            else f"{head} {stage.artifact}",
            flush=True,
        )
    if is_complete:
        return
    if stage.name in TOGETHER:
        stage.run()
    else:
        start.begin()
        alone(stage.name, stage.run, start.process)


def alone(name: str, work: Callable[[], object], process: Process) -> None:
    """Lets process 0 work; the others wait as long as it gives signs of itself."""
    process.heartbeat.enter(name)
    if process.is_first:
        work()
    process.meet(name, WORKING)


# --- data ------------------------------------------------------------------------------------------------------


def data_stage(config: Config, workdir: Workdir, _: Start) -> Stage:
    """Harvests pairs, and trains a tokenizer on them when the model starts from scratch."""
    return Stage("data", workdir.data, lambda: build_data(config, workdir), workdir.data.is_dir())


def build_data(config: Config, workdir: Workdir) -> None:
    """Writes the data folder whole or not at all."""
    spec = config.data.harvest
    if spec is None:
        raise ConfigError(
            "config.data.harvest is None: there is no data to build; set the harvest, or bring config.data.files"
        )
    with atomic_output(workdir.data) as folder:
        summary = harvest(spec, folder)
        tokens = first_training(config).tokens
        if not tokens.tokenizer and first_training(config).model.scratch:
            source = ExampleSource([folder / "train.jsonl"])
            texts = (
                text for i in range(len(source)) for text in (source[i].query, *source[i].positives)
            )
            train_tokenizer(texts, tokens.vocabulary).save(str(folder / "tokenizer.json"))
    print(
        f"data: {summary['train_pairs']:,} training pairs of {len(summary['train_packages'])} packages, {_held(summary)}",
        flush=True,
    )


def _held(summary: dict) -> str:
    return (
        f"{summary['heldout_pairs']:,} held-out pairs of {len(summary['heldout_packages'])} others"
    )


def first_training(config: Config) -> Training:
    """The training run that starts the chain."""
    return config.pretrain or config


# --- training and export ---------------------------------------------------------------------------------------


def pretrain_stage(config: Config, workdir: Workdir, start: Start) -> Stage:
    """A training run of its own with its export: the base of the main one."""
    made = config.pretrain
    assert made is not None, "validate: the pretrain stage has a configuration"
    place = workdir.pretrain

    def go() -> None:
        start.process.heartbeat.enter(READ)
        inputs = _inputs(made, workdir, made.model.base)
        is_written = untrained(workdir).is_dir
        if inputs.base is None and not start.process.agree("untrained", is_written):
            alone(
                "export",
                lambda: export_untrained(made, inputs.spec, inputs.tokenizer, untrained(workdir)),
                start.process,
            )
        train_to_end(made, inputs, place, "pretrain", start)
        alone(
            "export",
            lambda: export(made, inputs.base, inputs.spec, inputs.tokenizer, place, place.export),
            start.process,
        )

    return Stage("pretrain", place.export, go, place.export.is_dir())


def train_stage(config: Config, workdir: Workdir, start: Start) -> Stage:
    """The main training run."""

    def go() -> None:
        start.process.heartbeat.enter(READ)
        train_to_end(config, inputs_of(config, workdir), workdir, "train", start)

    done = workdir.trained.is_file() and trained_steps(workdir) >= config.optim.steps
    return Stage("train", workdir.trained, go, done)


def export_stage(config: Config, workdir: Workdir, _: Start) -> Stage:
    """The merged Hugging Face folder of the main run."""

    def go() -> None:
        export_to(config, workdir, workdir.export)

    return Stage("export", workdir.export, go, workdir.export.is_dir())


def export_to(config: Config, workdir: Workdir, output: Path, choice: Choice = CHOICE) -> None:
    """The newest checkpoint of the main run as a folder."""
    checkpoints, base = workdir.checkpoints_of(config.checkpoint), Path(_base(config, workdir))
    if Path(os.path.realpath(output)).is_relative_to(checkpoints):
        raise ConfigError(
            f"--output={output}: is where the run has its checkpoints; choose another --output"
        )
    inputs = [
        workdir.root,
        base,
        base_of(base) if base.is_dir() else None,
        None if in_bucket(checkpoints) else checkpoints,
    ]
    with writing(EXPORT, output, folder=True, inputs=filter(None, inputs)):
        inputs = inputs_of(config, workdir)
        step = export(config, inputs.base, inputs.spec, inputs.tokenizer, workdir, output, choice)
    print(f"export: step {step} -> {output}", flush=True)


def train_to_end(run: Training, inputs: Inputs, workdir: Workdir, name: str, start: Start) -> None:
    """Trains, and leaves a note of what was trained."""

    def begin(step: int) -> None:
        if step < (steps := trained_steps(workdir)):
            raise ConfigError(
                f"--workdir={workdir.root}: was trained for {steps} steps, and its newest sound checkpoint is of step {step}; "
                "bring checkpoints back to go on from, or choose another --workdir"
            )
        start.begin()

    if start.process.is_first:
        for line in inputs.differences:
            print(f"{name}: {run.model.base or 'base'}: {line}", flush=True)
    train(run, inputs, workdir, name, start.allow, begin, start.process)
    if not start.process.is_first:
        return
    made = build_step(run, inputs.spec, jax.default_backend()).model_def
    lengths = sample_lengths(inputs.batch_builder, run.optim.steps, run.batch.queries)
    write_text(workdir.lengths, json.dumps(lengths._asdict()) + "\n")
    note = {
        "steps": run.optim.steps,
        "trained_parameters": parameters(made, made.trained),
        "identity": dict(inputs.identity),
    }
    write_text(workdir.trained, json.dumps(note, indent=2) + "\n")


def inputs_of(config: Config, workdir: Workdir) -> Inputs:
    """What the main training run reads: its base is the pretrain stage's export, if there is that stage."""
    return _inputs(config, workdir, _base(config, workdir))


def _base(config: Config, workdir: Workdir) -> str:
    return str(workdir.pretrain.export) if config.pretrain else config.model.base


def _inputs(run: Training, workdir: Workdir, base: str) -> Inputs:
    files = run.data.files or (str(workdir.data / "train.jsonl"),)
    tokenizer = run.tokens.tokenizer or (
        str(workdir.data / "tokenizer.json") if run.model.scratch else ""
    )
    return read_inputs(run, files, Path(tokenizer) if tokenizer else None, base)


def untrained(workdir: Workdir) -> Path:
    """The random weights that a run from scratch started from, as a folder."""
    return workdir.pretrain.root / "untrained"


# --- evaluation ------------------------------------------------------------------------------------------------


def eval_stage(config: Config, workdir: Workdir, _: Start) -> Stage:
    """Scores of the export and of what it is compared with, the report page, and the model card that says them."""
    card = workdir.export / "README.md"

    def go() -> None:
        from e5jax.eval.stage import evaluate_run  # noqa: PLC0415  PyTorch and mteb are loaded for this stage only

        with tempfile.TemporaryDirectory() as space:
            base = Path(space, "base")
            missing = write_base(config, base)
            start = base if base.is_dir() else None
            evaluate_run(config, workdir, untrained(workdir), start, missing)
        write_text(card, with_scores(card.read_text(encoding="utf-8"), workdir.results))
        outputs.list_again(card, EXPORT)

    return Stage(
        "eval", workdir.results, go, workdir.results.is_file() and workdir.report.is_file()
    )


def write_base(config: Config, folder: Path) -> str:
    """Writes the base of a run as it starts from it, a hub id's from the cache or the hub. Returns why that cannot be done.

    It is no error: what was trained is there, and its scores need no base. A run that makes its own base has none.
    """
    if not config.model.base:
        return ""
    try:
        write_start(config, locate(config.model.base), folder)
    except ConfigError as error:
        return f"the base is not among the systems: {error}"
    return ""


STAGES: dict[str, Callable[[Config, Workdir, Start], Stage]] = {
    "data": data_stage,
    "pretrain": pretrain_stage,
    "train": train_stage,
    "export": export_stage,
    "eval": eval_stage,
}
