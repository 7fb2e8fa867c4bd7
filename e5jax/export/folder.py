"""From a checkpoint to a Hugging Face folder that transformers, PEFT and sentence-transformers load with no remote code."""

import json
from pathlib import Path

import jax

from e5jax.checkpoint import ownership
from e5jax.checkpoint.checkpointer import Checkpoints
from e5jax.config import Mesh, Training
from e5jax.data.tokenizer import TextTokenizer
from e5jax.errors import ConfigError
from e5jax.export import weights
from e5jax.export.card import model_card
from e5jax.export.settings import settings, with_bos_and_eos
from e5jax.export.trained_model import Choice, TrainedModel
from e5jax.export.verify import verify
from e5jax.mesh import make_mesh
from e5jax.model import hf_weights
from e5jax.model.adapter import FILE
from e5jax.model.families import read_spec
from e5jax.model.model_def import ModelDef, model_def
from e5jax.model.spec import Spec
from e5jax.train import temperature
from e5jax.workdir.directory import Workdir, atomic_output

CHOICE = Choice()
EXPORT = "export"  # the command, as its folders name it


def export(
    run: Training,
    base: Path | None,
    spec: Spec,
    tokenizer: TextTokenizer,
    workdir: Workdir,
    output: Path,
    choice: Choice = CHOICE,
) -> int:
    """Writes the newest checkpoint of `workdir` as `output`. Returns the step exported."""
    check(run, base, spec, choice)
    place = workdir.checkpoints_of(run.checkpoint)
    ownership.check(place, workdir, run)
    with Checkpoints(place) as checkpoints:
        step = checkpoints.newest()
        if step is None:
            raise ConfigError(
                f"--workdir={workdir.root}: no sound checkpoint in {place}; train first"
            )
        made = _blueprint(run, spec)
        mesh = make_mesh(Mesh(1, 1, 1), jax.local_devices()[:1])
        wanted = made.abstract(made.trained, mesh, "float32")
        found = checkpoints.open_parameters(step, wanted | temperature.abstract(run.loss, mesh))
        parameters = {name: found[name] for name in wanted}
    write(TrainedModel(run, base, made, parameters, tokenizer, step), output, choice, workdir)
    return step


def export_untrained(run: Training, spec: Spec, tokenizer: TextTokenizer, output: Path) -> None:
    """The random weights that a run from scratch starts from: what training is compared with."""
    made = _blueprint(run, spec)
    mesh = make_mesh(Mesh(1, 1, 1), jax.local_devices()[:1])
    parameters = made.initialise(made.trained, mesh, run.seed)
    write(
        TrainedModel(run, None, made, parameters, tokenizer, 0),
        output,
        Choice(verify=False),
        command="run",
    )


def check(run: Training, base: Path | None, spec: Spec, choice: Choice) -> None:
    """Raises ConfigError for what an adapter folder cannot hold."""
    if choice.format == "merged":
        return
    if run.lora is None or base is None:
        raise ConfigError(
            "--format=adapter: this run trained all parameters, there is no adapter; use --format=merged"
        )
    if run.select.names:
        raise ConfigError(
            f"--format=adapter: the run trained {', '.join(run.select.names)} beside its adapters, which an adapter folder cannot "
            "hold; use --format=merged"
        )
    if spec != (own := read_spec(base)):
        changed = [name for name in spec._fields if getattr(spec, name) != getattr(own, name)]
        raise ConfigError(
            f"--format=adapter: the run changed {', '.join(changed)} of its base, which an adapter folder cannot say; "
            "use --format=merged"
        )


def _blueprint(run: Training, spec: Spec) -> ModelDef:
    # It is never run: the kernel is of no account.
    return model_def(
        spec,
        run.lora,
        dtype=run.model.dtype,
        remat=run.model.remat,
        kernel="xla",
        select=run.select.names,
    )


def write(
    subject: TrainedModel,
    output: Path,
    choice: Choice = CHOICE,
    workdir: Workdir | None = None,
    command: str = EXPORT,
) -> None:
    """Writes the folder whole and verified, or not at all. `workdir` is where the card finds data and scores."""
    with atomic_output(output, command) as folder:
        fill(subject, folder, choice, workdir)
        if choice.verify:
            for line in verify(folder, subject, choice):
                print(f"export: {line}", flush=True)


def fill(
    subject: TrainedModel, folder: Path, choice: Choice, workdir: Workdir | None = None
) -> None:
    """Writes every file of the folder."""
    folder.mkdir()
    dtype = subject.run.export.dtype
    if choice.format == "merged":
        hf_weights.save(folder, weights.merged(subject), dtype, choice.shard_bytes)
    else:
        hf_weights.write(folder / FILE, list(weights.adapter(subject)), dtype)
    for name, content in settings(subject, choice).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    (folder / "tokenizer.json").write_text(
        with_bos_and_eos(subject.tokenizer).to_str(pretty=True), encoding="utf-8"
    )
    (folder / "README.md").write_text(model_card(subject, choice, workdir), encoding="utf-8")
