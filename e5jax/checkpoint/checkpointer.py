"""Saving and restoring checkpoints. The only module that imports orbax and tensorstore.

Orbax does not verify the bytes it reads, and reports a failed background save only when asked.
So a checkpoint counts as one only if it has a manifest (see `manifest`) and its bytes match it, and
a background save is polled after every step.
"""

import json
import logging
import os
import sys
import time
import traceback
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
from e5jax.distributed import heartbeat
from e5jax.distributed.coordination import Process
from e5jax.errors import ConfigError, RunError
from e5jax.storage import claim, folder_of, in_bucket
from e5jax.workdir.directory import ALLOW

# Fingerprints of data, base and tokenizer: a resumed run must have the same ones.
Identity = Mapping[str, str]
MATRIX = 2  # number of axes
S3 = "s3://"
SHOWN = 40  # characters of a fingerprint in an error message


class _Save(NamedTuple):
    """A save in the background."""

    step: int
    result: Future[None]
    deadline: float  # seconds of time.monotonic


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Is false for a record whose traceback passes through Orbax."""
    if not record.exc_info:
        return True
    frames = traceback.walk_tb(record.exc_info[2])
    return not any("orbax" in Path(frame.f_code.co_filename).parts for frame, _ in frames)


def _unraisable_hook(unraisable: "sys.UnraisableHookArgs") -> None:
    if not (
        isinstance(unraisable.exc_value, RuntimeError)
        and str(unraisable.exc_value) == "Event loop is closed"
    ):
        sys.__unraisablehook__(unraisable)


def _drop_tracebacks() -> None:
    """Stops Orbax and TensorStore from printing a traceback for each array that fails to be saved.

    They raise the same errors, and `finish` reports them in one line. asyncio prints those of write
    tasks that fail while Orbax closes the event loop because of an earlier failure.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable_hook  # for the writes of TensorStore after the first one


class Checkpoints:
    """The numbered checkpoints in a directory.

    With a `retention` it writes checkpoints and deletes old ones; all processes must then call
    every method, process 0 moves and deletes, and no other run may use the directory. Without, it
    only reads and needs no other process. `seconds` limits the time of a save.

    A checkpoint has two parts: `parameters`, which an export reads alone, and `rest` (optimizer
    moments and counters).
    """

    def __init__(
        self,
        directory: Path,
        retention: Retention | None = None,
        seconds: int = 600,
        *,
        background: bool = False,
        process: Process | None = None,
    ):
        self._process = process or Process()
        self._directory = folder_of(os.fspath(directory))
        self._retention, self._seconds = retention, seconds
        self._waits = not background
        _drop_tracebacks()
        support_s3()
        # Weights hardly compress: zstd makes a save 1.3 to 5.6 times as long and 8 % smaller
        # (benchmarks/results/verify.md).
        parameters, rest = (ocp.PyTreeCheckpointHandler(use_compression=False) for _ in range(2))
        atomicity = None
        if in_bucket(self._directory):  # a bucket has no rename
            atomicity = ocp.options.AtomicityOptions(ocp.options.AtomicityMode.COMMIT_FILE)
        handler = ocp.CompositeCheckpointHandler(
            composite_options=ocp.CompositeOptions(atomicity_options=atomicity),
            parameters=parameters,
            rest=rest,
        )
        processes = ocp.options.MultiprocessingOptions()
        if retention is None:
            own = jax.process_index()
            processes = ocp.options.MultiprocessingOptions(own, {own}, f"reader{own}")
        self._orbax = ocp.AsyncCheckpointer(
            handler,
            async_options=ocp.AsyncOptions(timeout_secs=seconds),
            multiprocessing_options=processes,
            atomicity_options=atomicity,
        )
        self._background = ThreadPoolExecutor(1, "checkpoint")
        self._saving: _Save | None = None
        self._search: Future[int | None] | None = None
        if retention is not None and self._process.is_first:
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
        """Starts the search for the newest checkpoint in the background; `newest` returns it."""
        if self._retention is None or self._process.is_first:
            self._search = self._background.submit(self._newest)

    def newest(self) -> int | None:
        """Returns the step of the newest checkpoint whose bytes match its manifest.

        A writer moves newer, damaged ones to the quarantine and prints the reason.
        """
        search, self._search = self._search, None
        find = search.result if search else self._newest
        return self._process.agree("newest", find) if self._retention else find()

    def _newest(self) -> int | None:
        sound, reasons = newest_sound(self._directory)
        for step, reason in reasons.items():
            moved = ""
            if self._retention:
                moved = f"; moved to {quarantine(self._directory, step, reason)}"
            print(f"checkpoint {step} is not used: {reason}{moved}", flush=True)
        return sound.step if sound else None

    def save(self, step: int, parameters: Any, rest: Any, facts: Mapping[str, Any]) -> None:
        """Writes checkpoint `step`, or starts to if saves run in the background.

        When it returns, the arrays may be donated. Raises what `finish` raises.
        """
        assert self._retention is not None, "a reader does not write"
        self.finish()
        # Waits here and not inside Orbax, where the watchdog cannot tell the processes that wait
        # from the one that is late.
        self._process.heartbeat.enter(heartbeat.WAIT)
        self._process.meet("save")
        self._process.heartbeat.enter(heartbeat.SAVE)
        first = ocp.args.PyTreeSave(parameters, save_args=jax.tree.map(_by_layer, parameters))
        parts = ocp.args.Composite(parameters=first, rest=ocp.args.PyTreeSave(rest))
        # `force` overwrites a save that was never finished.
        self._orbax.save(self._directory / str(step), args=parts, force=True)
        facts = {**facts, "parameters": _shapes(parameters)}
        result = self._background.submit(self._complete, step, facts)
        self._saving = _Save(step, result, time.monotonic() + self._seconds)
        if self._waits:
            self.finish()

    def _complete(self, step: int, facts: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        if self._process.is_first:
            manifest.write(self._directory / str(step), {"step": step, **facts})
            assert self._retention is not None
            expire(self._directory, self._retention)

    def poll(self) -> None:
        """Call it after every step. Raises RunError if the background save failed or is late."""
        saving = self._saving
        if saving and (saving.result.done() or time.monotonic() > saving.deadline):
            self.finish()

    def finish(self) -> None:
        """Waits for the background save. Raises RunError if it fails or exceeds the time limit."""
        if self._saving is None:
            return
        (step, result, deadline), self._saving = self._saving, None
        wait([result], timeout=max(0.0, deadline - time.monotonic()))
        if not result.done():
            raise RunError(
                f"checkpoint {step}: not saved within {self._seconds} s in {self._directory}; "
                "is the disk too slow?"
            )
        if (error := result.exception()) is not None:
            raise RunError(
                f"checkpoint {step}: could not be saved in {self._directory} "
                f"({type(error).__name__}: {error}); the checkpoints before it are untouched: "
                "make room or repair the disk, then the same command resumes"
            ) from error

    def facts(self, step: int) -> dict[str, Any]:
        """Returns the facts that were saved with a checkpoint."""
        return manifest.read(self._directory / str(step)).facts

    def check_identity(self, step: int, identity: Identity, allow: bool = False) -> list[str]:
        """Returns which of data, base and tokenizer differ from those of the checkpoint.

        Raises ConfigError if any differs, unless `allow`.
        """
        old, new = self.facts(step)["identity"], dict(identity)
        changed = sorted(name for name in old | new if old.get(name) != new.get(name))
        details = [
            f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}" for name in changed
        ]
        if changed and not allow:
            raise ConfigError(
                f"checkpoint {step} was trained with another {', '.join(changed)} "
                f"({'; '.join(details)}); bring the old one back, "
                f"or start in a new --workdir{ALLOW}"
            )
        return details

    def restore(self, step: int, parameters: Any, rest: Any) -> tuple[Any, Any]:
        """Returns (parameters, rest) with the shapes and shardings of the abstract trees."""
        self._check_shapes(step, parameters)
        construct = ocp.checkpoint_utils.construct_restore_args
        parts = {
            name: ocp.args.PyTreeRestore(tree, restore_args=construct(tree))
            for name, tree in {"parameters": parameters, "rest": rest}.items()
        }
        both = self._orbax.restore(self._directory / str(step), args=ocp.args.Composite(**parts))
        return both["parameters"], both["rest"]

    def open_parameters(
        self, step: int, parameters: Mapping[str, jax.ShapeDtypeStruct]
    ) -> dict[str, tensorstore.TensorStore]:
        """Opens the parameters lazily: `numpy.asarray` of a slice reads that slice only."""
        self._check_shapes(step, parameters)
        base = _kvstore(self._directory / str(step) / "parameters")
        futures = {}
        for name in parameters:
            kvstore = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
            spec = {"driver": "zarr", "kvstore": kvstore}
            futures[name] = tensorstore.open(spec, open=True, read=True)
        return {name: future.result() for name, future in futures.items()}

    def _check_shapes(self, step: int, parameters: Mapping[str, Any]) -> None:
        old, new = self.facts(step)["parameters"], _shapes(parameters)
        if wrong := sorted(name for name in old | new if old.get(name) != new.get(name)):
            raise ConfigError(
                f"checkpoint {step}: does not fit this configuration: {wrong[0]} is "
                f"{old.get(wrong[0], 'not there')}, and {new.get(wrong[0], 'nothing')} "
                f"is asked for ({len(wrong)} such parameters); bring the configuration back "
                "that it was trained with, or start in a new --workdir"
            )


# --- s3:// ---------------------------------------------------------------------------------------


def support_s3() -> None:
    """Makes Orbax open s3:// addresses; does nothing when called again.

    Orbax 0.12 treats every address but gs:// as a file (its pull request 2739), though TensorStore
    supports s3://. So the private function of Orbax that builds TensorStore specs is replaced.
    """
    original = specs.build_kvstore_tspec
    if hasattr(original, "__wrapped__"):
        return

    @wraps(original)
    def build_kvstore_tspec(directory: str, *args: Any, **kwargs: Any) -> Any:
        if not directory.startswith(S3):
            return original(directory, *args, **kwargs)
        return _as_s3(original(f"gs://{directory.removeprefix(S3)}", *args, **kwargs))

    specs.build_kvstore_tspec = build_kvstore_tspec


def _as_s3(spec: Any) -> Any:
    """Turns the spec of gs://BUCKET/PATH into that of s3://BUCKET/PATH."""
    if isinstance(spec, list):
        return [_as_s3(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    new = {name: _as_s3(value) for name, value in spec.items()}
    if new.get("driver") in ("gcs", "gcs_grpc"):
        new |= {"driver": "s3", **_s3_options()}
    return new


def _kvstore(folder: Path) -> str | dict[str, Any]:
    """The TensorStore spec of a folder."""
    address = os.fspath(folder)
    if not address.startswith(S3):
        return f"{address if in_bucket(folder) else folder.as_uri()}/"
    bucket, _, path = address.removeprefix(S3).partition("/")
    return {"driver": "s3", "bucket": bucket, "path": f"{path}/", **_s3_options()}


def _s3_options() -> dict[str, Any]:
    """Endpoint, region and credentials, from environment variables that TensorStore does not read.

    Without `aws_credentials` TensorStore searches for credential files first, and complains when
    there are none.
    """
    env = os.environ.get
    endpoint = env("AWS_ENDPOINT_URL_S3") or env("AWS_ENDPOINT_URL")
    region = env("AWS_REGION") or env("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    keys = {"type": "environment"} if "AWS_ACCESS_KEY_ID" in os.environ else None
    options = {"endpoint": endpoint, "aws_region": region, "aws_credentials": keys}
    return {name: value for name, value in options.items() if value}


# --- arrays --------------------------------------------------------------------------------------


def _by_layer(leaf: jax.Array) -> ocp.SaveArgs:
    """Saves a stack of layers layer by layer, so that a reader never needs the whole stack."""
    return ocp.SaveArgs(shard_axes=(0,) if leaf.ndim > MATRIX else ())


def _shapes(parameters: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(leaf.shape) for name, leaf in parameters.items()}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
