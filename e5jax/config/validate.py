"""Checks a configuration: types, ranges, and values that do not go together. Touches no device and no network.

Every finding is a `ConfigError` that names field, value and fix.
"""

import dataclasses
import math
import os
import typing
from pathlib import Path

from e5jax.config import TARGETS, Batch, Config, Direction, Lora, Loss, StageName, Training
from e5jax.config.mixture import check_mixture
from e5jax.config.types import above_zero, at_least, check_types, one_of
from e5jax.errors import ConfigError
from e5jax.storage import BUCKETS

SEEDS = 2**32  # jax.random.key keeps no more bits


def validate(config: Config) -> None:
    """Checks types, ranges and combinations. Touches no device and no network. Raises ConfigError."""
    check_types(config, "config")
    for stage in config.stages:
        one_of("config.stages", stage, typing.get_args(StageName))
    if (config.pretrain is None) == ("pretrain" in config.stages):
        raise ConfigError(
            f"config.stages={config.stages} and config.pretrain={'None' if config.pretrain is None else 'set'} "
            "disagree: name the stage and set the field, or neither"
        )
    for name in ("step", "start", "silence"):
        at_least(f"config.watchdog.{name}", getattr(config.watchdog, name), 1)
    _validate_training(config, "config", needs_start=config.pretrain is None)
    if config.pretrain is not None:
        if config.model.base or config.model.scratch:
            raise ConfigError(
                f"config.model.base={config.model.base!r}: the pretrain stage makes the base; leave base and scratch empty"
            )
        _validate_training(config.pretrain, "config.pretrain", needs_start=True)
        if (
            config.checkpoint.folder
            and config.checkpoint.folder == config.pretrain.checkpoint.folder
        ):
            raise ConfigError(
                f"config.checkpoint.folder={config.checkpoint.folder!r} is that of config.pretrain too; give each its own"
            )
        if config.pretrain.data.harvest not in (None, config.data.harvest):
            raise ConfigError(
                "config.pretrain.data.harvest differs from config.data.harvest: a run has one harvest; use one object for both"
            )
    if "data" in config.stages and config.data.harvest is None:
        raise ConfigError(
            "config.stages has 'data', and config.data.harvest is None: set the harvest, or leave the stage out"
        )
    if "heldout" in config.eval.tasks and "eval" in config.stages and config.data.harvest is None:
        raise ConfigError(
            "config.eval.tasks has 'heldout', which only config.data.harvest makes; name MTEB tasks instead"
        )


def _validate_training(run: Training, at: str, *, needs_start: bool) -> None:
    for path, value, least in [
        ("tokens.limit", run.tokens.limit, 3),
        ("tokens.vocabulary", run.tokens.vocabulary, 300),
        ("optim.steps", run.optim.steps, 1),
        ("optim.warmup_steps", run.optim.warmup_steps, 0),
        ("loss.block", run.loss.block, 1),
        ("checkpoint.every", run.checkpoint.every, 1),
        ("checkpoint.keep", run.checkpoint.keep, 1),
        ("checkpoint.forever", run.checkpoint.forever, 0),
        ("checkpoint.seconds", run.checkpoint.seconds, 1),
        ("guard.skips", run.guard.skips, 1),
        ("guard.spike", run.guard.spike, 0),
        ("guard.window", run.guard.window, 2),
        ("optim.weight_decay", run.optim.weight_decay, 0),
        ("export.dimensions", run.export.dimensions, 0),
    ]:
        at_least(f"{at}.{path}", value, least)
    check_batch(run.batch, run.tokens.limit, at)
    for path, value in [
        ("loss.temperature", run.loss.temperature),
        ("optim.learning_rate", run.optim.learning_rate),
        ("optim.clip_norm", run.optim.clip_norm),
        ("optim.epsilon", run.optim.epsilon),
    ]:
        above_zero(f"{at}.{path}", value)
    for path, value in [("optim.beta1", run.optim.beta1), ("optim.beta2", run.optim.beta2)]:
        if not 0 <= value < 1:
            raise ConfigError(f"{at}.{path}={value}: must be at least 0 and below 1")
    if not 0 <= run.seed < SEEDS:
        raise ConfigError(f"{at}.seed={run.seed}: must be at least 0 and below {SEEDS}")
    if run.optim.warmup_steps >= run.optim.steps:
        raise ConfigError(
            f"{at}.optim.warmup_steps={run.optim.warmup_steps}: must be below optim.steps={run.optim.steps}"
        )
    if "://" in run.checkpoint.folder and not run.checkpoint.folder.startswith(tuple(BUCKETS)):
        raise ConfigError(
            f"{at}.checkpoint.folder={run.checkpoint.folder!r}: Orbax writes to a disk, or to {', '.join(BUCKETS)}; "
            "mount other buckets, and name the folder where they are"
        )
    _validate_profile(run, at)
    _validate_probe(run, at)
    _validate_loss(run.loss, at)
    _validate_bounds(run, at)
    _validate_lora(run.lora, at)
    _validate_select(run, at)
    _validate_tokens(run, at)
    if run.model.quantisation != "none" and run.lora is None and not run.select.names:
        raise ConfigError(
            f"{at}.model.quantisation={run.model.quantisation!r} stores frozen weights as integers, and without "
            f"{at}.lora nothing is frozen; set lora, or quantisation to 'none'"
        )
    _validate_mesh(run, at)
    _validate_attention(run, at)
    _validate_start(run, at, needs_start=needs_start)
    _validate_data(run, at)


def _validate_data(run: Training, at: str) -> None:
    data = run.data
    at_least(f"{at}.data.workers", data.workers, 0)
    most = {"positives": run.batch.positives, "negatives": run.batch.negatives}
    check_mixture(data.mixture, run.tokens.limit, most, f"{at}.data.mixture")
    if run.batch.queries == 1 and not run.batch.negatives:
        raise ConfigError(
            f"{at}.batch.queries=1 and {at}.batch.negatives=0 compare a query with nothing; raise one of them"
        )
    if data.harvest is None and not data.files and not data.mixture.datasets:
        raise ConfigError(
            f"{at}.data.files and {at}.data.mixture.datasets are empty and {at}.data.harvest is None: nothing to train on; set one"
        )


def _validate_probe(run: Training, at: str) -> None:
    probe = run.probe
    for name, least in [("every", 0), ("queries", 1), ("documents", 1)]:
        at_least(f"{at}.probe.{name}", getattr(probe, name), least)
    if bool(probe.every) != bool(probe.folders):
        raise ConfigError(
            f"{at}.probe.every={probe.every} and {at}.probe.folders={probe.folders}: set both, or neither to train without looking"
        )


def _validate_profile(run: Training, at: str) -> None:
    profile = run.profile
    at_least(f"{at}.profile.first", profile.first, 1)
    at_least(f"{at}.profile.steps", profile.steps, 0)
    last = profile.first + profile.steps - 1
    if profile.steps and last > run.optim.steps:
        raise ConfigError(
            f"{at}.profile.first={profile.first} and {at}.profile.steps={profile.steps} end at step {last}: "
            f"must be at most {at}.optim.steps={run.optim.steps}; begin earlier, or trace fewer"
        )


def _validate_loss(loss: Loss, at: str) -> None:
    for way in loss.directions:
        one_of(f"{at}.loss.directions", way, typing.get_args(Direction))
    if "query_to_doc" not in loss.directions or len(set(loss.directions)) < len(loss.directions):
        raise ConfigError(
            f"{at}.loss.directions={loss.directions}: must have 'query_to_doc', which has the positives, and each of them once"
        )
    if loss.partition == "per_direction" and (
        alone := {"query_to_query", "doc_to_doc"} & set(loss.directions)
    ):
        raise ConfigError(
            f"{at}.loss.partition='per_direction': the softmax of a direction needs a positive, and {min(alone)!r} has none; "
            "use 'joint', or leave the direction out"
        )
    if loss.margin is not None and not (
        0 < loss.margin <= 1 if loss.margin_kind == "ratio" else 0 <= loss.margin < math.inf
    ):
        of = "above 0 and at most 1" if loss.margin_kind == "ratio" else "at least 0 and finite"
        raise ConfigError(
            f"{at}.loss.margin={loss.margin} with margin_kind={loss.margin_kind!r}: must be {of}, or none"
        )
    if not 0 <= loss.hardness_strength < math.inf:
        raise ConfigError(
            f"{at}.loss.hardness_strength={loss.hardness_strength}: must be at least 0 and finite"
        )
    if not 0 <= loss.smoothing < 1:
        raise ConfigError(f"{at}.loss.smoothing={loss.smoothing}: must be at least 0 and below 1")
    if min(loss.dimensions, default=1) < 1 or len(set(loss.dimensions)) < len(loss.dimensions):
        raise ConfigError(
            f"{at}.loss.dimensions={loss.dimensions}: lengths of prefixes must be at least 1 and different"
        )
    if loss.weights and (
        len(loss.weights) != len(loss.dimensions)
        or not all(0 < weight < math.inf for weight in loss.weights)
    ):
        raise ConfigError(
            f"{at}.loss.weights={loss.weights}: needs one weight above 0 for each of dimensions={loss.dimensions}"
        )


def _validate_bounds(run: Training, at: str) -> None:
    bounds, sets = run.loss.bounds, run.data.mixture.datasets.values()
    given = sorted(
        {run.loss.temperature, *(one.temperature for one in sets if one.temperature is not None)}
    )
    if bounds and not (
        len(bounds) == 2 and 0 < bounds[0] < given[0] and given[-1] < bounds[1] < math.inf
    ):
        raise ConfigError(
            f"{at}.loss.bounds={bounds}: must be two numbers, below and above every temperature that learning begins with "
            f"({', '.join(f'{value:g}' for value in given)}), or empty for a fixed one"
        )


def check_dimensions(loss: Loss, hidden: int, at: str = "config") -> None:
    """No prefix is longer than the vector."""
    if max(loss.dimensions, default=0) > hidden:
        raise ConfigError(
            f"{at}.loss.dimensions={loss.dimensions}: the model's vectors have {hidden} numbers; use no more"
        )


def _validate_lora(lora: Lora | None, at: str) -> None:
    if lora is None:
        return
    if lora.rank < 1:
        raise ConfigError(
            f"{at}.lora.rank={lora.rank}: must be at least 1; for full fine-tuning set --config.lora=none"
        )
    if not 0 <= lora.dropout < 1:
        raise ConfigError(f"{at}.lora.dropout={lora.dropout}: must be at least 0 and below 1")
    if not lora.targets:
        raise ConfigError(f"{at}.lora.targets is empty: name some of {', '.join(TARGETS)}")
    for target in lora.targets:
        one_of(f"{at}.lora.targets", target, TARGETS)


def _validate_tokens(run: Training, at: str) -> None:
    added = run.tokens.added
    if len(set(added)) < len(added) or not all(token.strip() for token in added):
        raise ConfigError(f"{at}.tokens.added={added}: tokens must differ, and not be blank")
    if "{task}" in run.tokens.document:
        raise ConfigError(
            f"{at}.tokens.document={run.tokens.document!r}: documents have no instruction; leave {{task}} out"
        )


def _validate_select(run: Training, at: str) -> None:
    select = run.select
    at_least(f"{at}.select.top", select.top, 0)
    if select.top and not select.names:
        raise ConfigError(
            f"{at}.select.top={select.top} names layers, and {at}.select.names is empty; set it to ('top/*',)"
        )
    if select.names and run.model.scratch is not None:
        raise ConfigError(
            f"{at}.select with {at}.model.scratch: what is not selected would stay random; leave select.names empty"
        )


def _validate_mesh(run: Training, at: str) -> None:
    axes = {f.name: getattr(run.mesh, f.name) for f in dataclasses.fields(run.mesh)}
    for name, size in axes.items():
        if size < 1 and size != -1:
            raise ConfigError(
                f"{at}.mesh.{name}={size}: must be at least 1, or -1 for all devices that are left"
            )
    if list(axes.values()).count(-1) > 1:
        raise ConfigError(f"{at}.mesh={axes}: -1 on more than one axis; give all but one a size")
    check_shards(run.batch, max(run.mesh.data, 1) * max(run.mesh.fsdp, 1), at)


def check_batch(batch: Batch, limit: int, at: str = "config") -> None:
    """Ranges, and queries that divide over the shards."""
    for name in ("queries", "positives", "chunks", "texts_a_row", "shards"):
        at_least(f"{at}.batch.{name}", getattr(batch, name), 1)
    for name in ("negatives", "kept_chunks"):
        at_least(f"{at}.batch.{name}", getattr(batch, name), 0)
    if batch.row_tokens and batch.row_tokens < limit:
        raise ConfigError(
            f"{at}.batch.row_tokens={batch.row_tokens}: must be at least tokens.limit={limit}, or 0 for just that"
        )
    if batch.kept_on == "host" and batch.kept_chunks == 0 and batch.chunks > 1:
        raise ConfigError(
            f"{at}.batch.kept_on='host' moves what kept chunks keep, and {at}.batch.kept_chunks=0 keeps nothing; "
            "set kept_chunks, or kept_on to 'device'"
        )
    if batch.queries % batch.shards:
        raise ConfigError(
            f"{at}.batch.queries={batch.queries}: must divide into shards={batch.shards}; use a multiple of {batch.shards}"
        )


def check_shards(batch: Batch, devices: int, at: str = "config") -> None:
    """Devices take whole shards; `devices` = data × fsdp."""
    if batch.shards % devices:
        raise ConfigError(
            f"{at}.batch.shards={batch.shards}: mesh.data × mesh.fsdp = {devices} does not divide it; "
            f"set shards to {math.lcm(batch.shards, devices)}, which has to divide queries={batch.queries}"
        )


def _validate_start(run: Training, at: str, *, needs_start: bool) -> None:
    base, scratch = run.model.base, run.model.scratch
    if needs_start and bool(base) == (scratch is not None):
        raise ConfigError(
            f"{at}.model.base={base!r} and {at}.model.scratch: set exactly one of them"
        )
    if base and not is_hub_id(base) and not Path(base).is_dir():
        raise ConfigError(
            f"{at}.model.base={base!r}: there is no such folder; give a Hugging Face folder or a hub id like org/name"
        )
    if run.tokens.tokenizer and not Path(run.tokens.tokenizer).is_file():
        raise ConfigError(
            f"{at}.tokens.tokenizer={run.tokens.tokenizer!r}: there is no such file; give a tokenizer.json"
        )
    if scratch is None:
        return
    if run.lora is not None:
        raise ConfigError(
            f"{at}.lora with {at}.model.scratch: adapters on frozen random weights learn nothing; set lora to none"
        )
    for name in ("hidden", "ff", "layers", "heads", "kv_heads", "head_size"):
        at_least(f"{at}.model.scratch.{name}", getattr(scratch, name), 1)
    if scratch.heads % scratch.kv_heads:
        raise ConfigError(
            f"{at}.model.scratch.kv_heads={scratch.kv_heads}: must divide heads={scratch.heads}"
        )
    if scratch.head_size % 2:
        raise ConfigError(
            f"{at}.model.scratch.head_size={scratch.head_size}: must be even for rotary embedding"
        )


def _validate_attention(run: Training, at: str) -> None:
    model, width = run.model, run.batch.width(run.tokens.limit)
    if model.attention == "cudnn" and model.dtype != "bfloat16":
        raise ConfigError(
            f"{at}.model.attention='cudnn' computes in half precision, and {at}.model.dtype={model.dtype!r}; set bfloat16"
        )
    multiple = {"cudnn": 2, "splash": 128}.get(model.attention, 1)
    if width % multiple:
        field = "batch.row_tokens" if run.batch.row_tokens else "tokens.limit"
        raise ConfigError(
            f"{at}.model.attention={model.attention!r} needs rows of a multiple of {multiple} tokens, and "
            f"{at}.{field}={width}; set {width + -width % multiple}, or attention='auto'"
        )
    if model.scratch is not None and (model.theta, model.window) != (None, None):
        raise ConfigError(
            f"{at}.model.theta={model.theta} and {at}.model.window={model.window} change those of a base; from scratch set "
            f"{at}.model.scratch.theta and {at}.model.scratch.window"
        )
    if model.theta is not None and not 0 < model.theta < math.inf:
        raise ConfigError(
            f"{at}.model.theta={model.theta}: must be above 0 and finite, or none for the base's own"
        )
    if model.window is not None:
        at_least(f"{at}.model.window", model.window, 0)


def is_hub_id(name: str) -> bool:
    """True for `org/name` when no such folder is here."""
    parts = name.split("/")
    return (
        len(parts) == 2
        and all(parts)
        and not name.startswith((".", "~"))
        and not os.path.exists(name)
    )
