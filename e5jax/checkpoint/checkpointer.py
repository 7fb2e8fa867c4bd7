"""Checkpoints of what changes, and the facts about what does not. The only home of orbax, and of tensorstore beneath it.

Orbax writes and reads arrays; it checks none of their bytes, and hides a full disk until somebody asks. So a checkpoint is one
when it has a manifest (`manifest`), only those whose bytes fit it are read, and a save in the background is asked after every step.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp
import tensorstore
from orbax.checkpoint._src.serialization import tensorstore_utils as specs

from e5jax.checkpoint import manifest
from e5jax.checkpoint.retention import Retention, clear, expire, newest_sound, quarantine
from e5jax.distributed import coordination, heartbeat
from e5jax.errors import ConfigError, RunError
from e5jax.storage import claim, folder_of, in_bucket
from e5jax.workdir.directory import ALLOW

Identity = Mapping[
    str, str
]  # what a resumed run must share with the first one: fingerprints of data, base, tokenizer
MATRIX = 2  # axes
S3 = "s3://"
SHOWN = 40  # characters of an entry that differs


class _Save(NamedTuple):
    """A save that goes on in the background."""

    step: int
    result: Future[None]
    deadline: float  # on the clock of time.monotonic


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return not (record.exc_info and "orbax" in record.pathname)


def _unraisable_hook(unraisable: "sys.UnraisableHookArgs") -> None:
    if not (
        isinstance(unraisable.exc_value, RuntimeError)
        and str(unraisable.exc_value) == "Event loop is closed"
    ):
        sys.__unraisablehook__(unraisable)


def _drop_tracebacks() -> None:
    """Keeps Orbax and TensorStore from printing what they also raise, once for each array: `finish` reports it in one line."""
    logging.getLogger("absl").addFilter(_not_of_orbax)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable_hook  # TensorStore's, when a write fails after another has


class Checkpoints:
    """Numbered checkpoints below a directory, written and kept as `retention` says, or only read where it is None.

    A checkpoint has two parts, so that export can read the parameters alone: `parameters` and `rest` (moments and counters).
    Of a writer all processes call all methods, and process 0 alone moves and deletes; it needs the directory for itself.
    A reader asks no other process.
    """

    def __init__(
        self,
        directory: Path,
        retention: Retention | None = None,
        seconds: int = 600,
        *,
        background: bool = False,
    ):
        self._directory, self._retention, self._seconds = (
            folder_of(os.fspath(directory)),
            retention,
            seconds,
        )
        self._waits = not background
        _drop_tracebacks()
        # Random numbers do not compress: zstd makes a save 1.3 to 5.6 times as long, for 8 % (benchmarks/results/verify.md).
        parameters, rest = (ocp.PyTreeCheckpointHandler(use_compression=False) for _ in range(2))
        # A bucket has no rename.
        whole = (
            ocp.options.AtomicityOptions(ocp.options.AtomicityMode.COMMIT_FILE)
            if in_bucket(self._directory)
            else None
        )
        composed = ocp.CompositeOptions(atomicity_options=whole)
        handler = ocp.CompositeCheckpointHandler(
            composite_options=composed, parameters=parameters, rest=rest
        )
        own = jax.process_index()
        alone = (
            ocp.options.MultiprocessingOptions(own, {own}, f"reader{own}")
            if retention is None
            else None
        )
        self._orbax = ocp.AsyncCheckpointer(
            handler,
            async_options=ocp.AsyncOptions(timeout_secs=seconds),
            multiprocessing_options=alone or ocp.options.MultiprocessingOptions(),
            atomicity_options=whole,
        )
        self._background = ThreadPoolExecutor(1, "checkpoint")
        self._saving: _Save | None = None
        self._looking: Future[int | None] | None = None
        if retention is not None and jax.process_index() == 0:
            claim(self._directory)
            clear(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.finish()
        except RunError as failed:
            if error is None:
                raise
            error.add_note(str(failed))
        finally:
            self._background.shutdown(wait=False)

    def look(self) -> None:
        """Begins to look for what `newest` will be asked for, while other things are read."""
        if self._retention is None or coordination.first():
            self._looking = self._background.submit(self._newest)

    def newest(self) -> int | None:
        """The newest checkpoint whose every byte is as it was written. A writer sets newer ones aside, and says why."""
        looking, self._looking = self._looking, None
        find = looking.result if looking else self._newest
        return coordination.agree("newest", find) if self._retention else find()

    def _newest(self) -> int | None:
        sound, wrong = newest_sound(self._directory)
        for step, reason in wrong.items():
            moved = (
                f"; moved to {quarantine(self._directory, step, reason)}" if self._retention else ""
            )
            print(f"checkpoint {step} is not used: {reason}{moved}", flush=True)
        return sound.step if sound else None

    def save(self, step: int, parameters: Any, rest: Any, facts: Mapping[str, Any]) -> None:
        """Writes checkpoint `step`, or begins to if it goes on in the background; then the arrays may be given away.

        Raises what `finish` raises.
        """
        assert self._retention is not None, "a reader does not write"
        self.finish()
        heartbeat.enter(
            heartbeat.WAIT
        )  # here, not in Orbax: there the watchdog cannot tell who waits from whom the others wait for
        coordination.meet("save")
        heartbeat.enter(heartbeat.SAVE)
        saved = ocp.args.PyTreeSave(parameters, save_args=jax.tree.map(_by_layer, parameters))
        parts = ocp.args.Composite(parameters=saved, rest=ocp.args.PyTreeSave(rest))
        self._orbax.save(
            self._directory / str(step), args=parts, force=True
        )  # over one that was never finished
        result = self._background.submit(
            self._complete, step, {**facts, "parameters": _shapes(parameters)}
        )
        self._saving = _Save(step, result, time.monotonic() + self._seconds)
        if self._waits:
            self.finish()

    def _complete(self, step: int, facts: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index() == 0:
            manifest.write(self._directory / str(step), {"step": step, **facts})
            assert self._retention is not None
            expire(self._directory, self._retention)

    def poll(self) -> None:
        """To be called after every step: raises RunError if the save in the background has failed, or takes too long."""
        if self._saving is not None and (
            self._saving.result.done() or time.monotonic() > self._saving.deadline
        ):
            self.finish()

    def finish(self) -> None:
        """Waits for the save in the background. Raises RunError if it fails, or takes too long."""
        if self._saving is None:
            return
        (step, result, deadline), self._saving = self._saving, None
        wait([result], timeout=max(0.0, deadline - time.monotonic()))
        if not result.done():
            raise RunError(
                f"checkpoint {step}: not saved within {self._seconds} s in {self._directory}; is the disk too slow?"
            )
        if (error := result.exception()) is not None:
            raise RunError(
                f"checkpoint {step}: could not be saved in {self._directory} ({type(error).__name__}: {error}); "
                "the checkpoints before it are untouched: make room or mend the disk, then the same command goes on"
            ) from error

    def facts(self, step: int) -> dict[str, Any]:
        """What was said when it was saved."""
        return manifest.read(self._directory / str(step)).facts

    def check_identity(self, step: int, identity: Identity, allow: bool = False) -> list[str]:
        """What of data, base and tokenizer is not what the checkpoint was trained with: ConfigError if that is not allowed."""
        found = self.facts(step)["identity"]
        changed = sorted(
            name for name in found | dict(identity) if found.get(name) != identity.get(name)
        )
        details = [
            f"{name}: {_short(found.get(name))} -> {_short(identity.get(name))}" for name in changed
        ]
        if changed and not allow:
            raise ConfigError(
                f"checkpoint {step} was trained with another {', '.join(changed)} ({'; '.join(details)}); "
                f"bring the old one back, or start in a new --workdir{ALLOW}"
            )
        return details

    def restore(self, step: int, parameters: Any, rest: Any) -> tuple[Any, Any]:
        """(parameters, rest) placed as the abstract trees say."""
        self._check_shapes(step, parameters)
        parts = {
            name: ocp.args.PyTreeRestore(
                tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree)
            )
            for name, tree in {"parameters": parameters, "rest": rest}.items()
        }
        found = self._orbax.restore(self._directory / str(step), args=ocp.args.Composite(**parts))
        return found["parameters"], found["rest"]

    def open_parameters(
        self, step: int, parameters: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, tensorstore.TensorStore]:
        """The parameters of these shapes, none of whose numbers are read before `numpy.asarray` asks for some of them."""
        self._check_shapes(step, parameters)
        base = _opened(self._directory / str(step) / "parameters")
        opened = {
            name: tensorstore.open(
                {
                    "driver": "zarr",
                    "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"},
                },
                open=True,
                read=True,
            )
            for name in parameters
        }
        return {name: future.result() for name, future in opened.items()}

    def _check_shapes(self, step: int, parameters: Mapping[str, Any]) -> None:
        there, asked = self.facts(step)["parameters"], _shapes(parameters)
        if wrong := sorted(name for name in there | asked if there.get(name) != asked.get(name)):
            raise ConfigError(
                f"checkpoint {step}: does not fit this configuration: {wrong[0]} is {there.get(wrong[0], 'not there')}, and "
                f"{asked.get(wrong[0], 'nothing')} is asked for ({len(wrong)} such parameters); "
                "bring the configuration back that it was trained with, or start in a new --workdir"
            )


# --- s3:// -----------------------------------------------------------------------------------------------------


def _opened(folder: Path) -> str | dict[str, Any]:
    """How TensorStore is to open a folder."""
    where = os.fspath(folder)
    if not where.startswith(S3):
        return f"{where if in_bucket(folder) else folder.as_uri()}/"
    bucket, _, path = where.removeprefix(S3).partition("/")
    return {"driver": "s3", "bucket": bucket, "path": f"{path}/", **_amazon()}


def _amazon() -> dict[str, Any]:
    """Where the buckets are, from variables that s3fs reads and TensorStore does not, and that keys are in the environment.

    Unless it is told so, TensorStore looks for files of keys first, and complains where there are none.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = (
        os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or ("us-east-1" if endpoint else None)
    )
    keys = {"type": "environment"} if "AWS_ACCESS_KEY_ID" in os.environ else None
    said = {"endpoint": endpoint, "aws_region": region, "aws_credentials": keys}
    return {name: value for name, value in said.items() if value}


def _into_s3(spec: Any) -> Any:
    """What opens gs://BUCKET/PATH, for s3://BUCKET/PATH."""
    if not isinstance(spec, dict):
        return [_into_s3(one) for one in spec] if isinstance(spec, list) else spec
    inner = {name: _into_s3(value) for name, value in spec.items()}
    return (
        inner | {"driver": "s3", **_amazon()}
        if inner.get("driver") in ("gcs", "gcs_grpc")
        else inner
    )


_orbax_specs = specs.build_kvstore_tspec


@wraps(_orbax_specs)
def _specs(directory: str, *args: Any, **kwargs: Any) -> Any:
    """Orbax 0.12 takes every address but gs:// for a file (its pull request 2739). TensorStore beneath it knows s3:// as well."""
    if not directory.startswith(S3):
        return _orbax_specs(directory, *args, **kwargs)
    return _into_s3(_orbax_specs(f"gs://{directory.removeprefix(S3)}", *args, **kwargs))


specs.build_kvstore_tspec = _specs


def _by_layer(leaf: jax.Array) -> ocp.SaveArgs:
    """A stack of layers is written a layer at a time, to be read so: a whole one of a large model takes much memory."""
    return ocp.SaveArgs(shard_axes=(0,) if leaf.ndim > MATRIX else ())


def _shapes(parameters: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(leaf.shape) for name, leaf in parameters.items()}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
