"""Metrics: JSON lines always, TensorBoard and Weights & Biases when asked, a progress bar on a terminal. Only process 0 writes."""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from e5jax.config import Log
from e5jax.errors import ConfigError, RecordError
from e5jax.jsonl import parse_object
from e5jax.workdir.directory import write_text

LINES = 20  # plain progress lines in a run whose output is not a terminal


class MetricLog:
    """One line of scalars a step. On resume, lines after the checkpoint are dropped: those steps are run again."""

    def __init__(self, path: Path, config: Log, *, name: str, start: int, steps: int, writes: bool):
        self._wandb: Any = _wandb(config, name) if writes and config.wandb_project else None
        self._bar = tqdm(
            total=steps, initial=start, desc=name, unit="step", disable=None if writes else True
        )
        self._steps, self._every, self._name = steps, max(1, steps // LINES), name
        self._file = self._board = None
        if writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                write_text(
                    path,
                    "".join(
                        f"{json.dumps(row)}\n" for row in read_rows(path) if row["step"] <= start
                    ),
                )
            self._file = path.open("a", encoding="utf-8", buffering=1)
            self._board = (
                _tensorboard(path.parent / "tensorboard", start) if config.tensorboard else None
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def write(self, step: int, scalars: dict[str, float], **words: str) -> None:
        """Writes the scalars of one step, and to the lines of JSON a few words too; `step` counts from 1."""
        if self._file is None:
            return
        finite = {
            name: value if math.isfinite(value) else None for name, value in scalars.items()
        }  # JSON has no NaN
        self._file.write(json.dumps({"step": step, **words, **finite}, allow_nan=False) + "\n")
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)
        rate = f"{scalars['train/pairs_per_second']:.1f} pairs/s"
        shown = (
            f"loss {scalars['train/loss']:.4f}  accuracy {scalars['train/accuracy']:.3f}  {rate}"
        )
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update(step - self._bar.n)
        if self._bar.disable and (step % self._every == 0 or step == self._steps):
            print(f"{self._name}: step {step}/{self._steps}  {shown}", file=sys.stderr, flush=True)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a `metrics.jsonl`. A damaged line is left out, and said; the last one may be half, of a killed run."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = parse_object(line)
            if not isinstance(row.get("step"), int):
                raise RecordError("has no step")
        except RecordError as error:
            print(f"{path}:{number}: damaged, left out ({error})", flush=True)
        else:
            yield row


def _tensorboard(folder: Path, start: int) -> Any:
    """A writer that hides what an earlier process wrote of the steps after `start`."""
    # tensorboardX imports torch where it is installed, which takes longer than all other imports together.
    return importlib.import_module("tensorboardX").SummaryWriter(str(folder), purge_step=start + 1)


def _wandb(config: Log, name: str) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"config.log.wandb_project={config.wandb_project!r} needs the package wandb: pip install wandb"
        ) from error
    return wandb.init(project=config.wandb_project, name=name)
