"""What becomes of a step whose update was not made: its batch is written down, and after too many in a row the run ends.

skipped/300.json    when, why, and the batch's hash
skipped/300.jsonl   its examples as records: the texts that were taken, with their ids and sources
skipped/300.npz     its arrays as they went to the devices; `numpy.load` opens it
"""

import json
from pathlib import Path

import jax
import numpy as np

from e5jax.config import Guard
from e5jax.data.batches import BatchBuilder
from e5jax.data.records import Batch, Metrics
from e5jax.errors import RunError
from e5jax.workdir.directory import atomic_output, write_text

MOST = 20  # batches in the folder: they are large, and the first ones say what is wrong


class Skipped:
    """All processes ask it after every step, and it answers them alike; process 0 alone writes."""

    def __init__(self, folder: Path, guard: Guard, assembly: BatchBuilder):
        self._folder, self._guard, self._assembly = folder, guard, assembly

    def look(self, number: int, batch: Batch, digest: str, found: Metrics) -> None:
        """Raises RunError when too many steps in a row were skipped."""
        in_a_row = int(found.in_a_row)
        if not in_a_row:
            return
        why = f"loss={float(found.loss):.6g}, gradient norm={float(found.gradient_norm):.6g}"
        why += ": far above the usual (config.guard.spike)" if found.finite else ": not finite"
        if jax.process_index() == 0:
            written = self._write(number, batch, digest, why)
            print(f"step {number}: no update, {why}; its batch is {written}", flush=True)
        if in_a_row >= self._guard.skips:
            first = number - in_a_row + 1
            raise RunError(
                f"steps {first} to {number}: no update in {in_a_row} steps in a row (config.guard.skips={self._guard.skips}); "
                f"the last one's {why}. The parameters are those of step {first - 1}, and checkpoints are sound. "
                f"The batches are in {self._folder}: look at the data, or lower config.optim.learning_rate in a new --workdir"
            )

    def _write(self, number: int, batch: Batch, digest: str, why: str) -> str:
        files = {kind: self._folder / f"{number}.{kind}" for kind in ("jsonl", "npz", "json")}
        if not files["json"].exists() and len(list(self._folder.glob("*.json"))) >= MOST:
            return f"not kept: there are {MOST} in {self._folder}"
        taken = self._assembly.select(number - 1)
        write_text(
            files["jsonl"],
            "".join(f"{one.example._replace(instruction=one.task).to_json()}\n" for one in taken),
        )
        with atomic_output(files["npz"]) as temporary:
            np.savez(temporary, allow_pickle=False, **batch._asdict())
        write_text(
            files["json"],
            json.dumps({"step": number, "why": why, "batch": digest}, indent=2) + "\n",
        )
        return f"in {files['jsonl']}"
