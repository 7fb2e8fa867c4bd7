"""Checkpoints of what changes, and the identity of what does not. The only home of orbax."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orbax.checkpoint as ocp

from e5jax.errors import ConfigError

Identity = Mapping[str, str]  # what a resumed run must share with the first one: fingerprints of data, base, tokenizer
SHOWN = 40  # characters of an entry that differs


class Checkpoints:
    """Numbered checkpoints below a directory; the newest `keep` stay.

    A checkpoint has three parts, so that export can read the parameters alone: `parameters`, `rest` (moments and
    counters) and `identity`. Saving returns when the checkpoint is complete.
    """

    def __init__(self, directory: Path, keep: int | None = None):
        # Synchronous: the state is donated to the next step, and a save that fails must fail here.
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options, item_names=("parameters", "rest", "identity"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Number of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, parameters: Any, rest: Any, identity: Identity) -> None:
        """Writes checkpoint `step`."""
        parts = ocp.args.Composite(
            parameters=ocp.args.StandardSave(parameters),
            rest=ocp.args.StandardSave(rest),
            identity=ocp.args.JsonSave(dict(identity)),
        )
        self._manager.save(step, args=parts)

    def check_identity(self, step: int, identity: Identity) -> None:
        """Raises ConfigError when data, base or tokenizer are not those that the checkpoint was trained with."""
        found = self._manager.restore(step, args=ocp.args.Composite(identity=ocp.args.JsonRestore()))["identity"]
        changed = sorted(name for name in found | dict(identity) if found.get(name) != identity.get(name))
        if changed:
            details = "; ".join(f"{name}: {_short(found.get(name))} -> {_short(identity.get(name))}" for name in changed)
            raise ConfigError(
                f"checkpoint {step} was trained with another {', '.join(changed)} ({details}); "
                "bring the old one back, or start in a new --workdir"
            )

    def restore(self, step: int, parameters: Any, rest: Any) -> tuple[Any, Any]:
        """(parameters, rest) placed as the abstract trees say."""
        parts = ocp.args.Composite(parameters=ocp.args.StandardRestore(parameters), rest=ocp.args.StandardRestore(rest))
        found = self._manager.restore(step, args=parts)
        return found["parameters"], found["rest"]

    def restore_parameters(self, step: int, parameters: Any) -> Any:
        """The parameters alone."""
        return self._manager.restore(step, args=ocp.args.Composite(parameters=ocp.args.StandardRestore(parameters)))["parameters"]


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
