"""How the processes of a run find each other, agree, and exit together.

The only module that uses `jax.distributed`. Processes exchange messages through the key-value store
of JAX's coordination service and not through the devices, so an answer never depends on a device
that hangs, and every wait has a time limit. A run of a single process waits for nobody.
"""

import faulthandler
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import jax
from jax._src import distributed  # the store has no public name; Orbax imports it this way too
from jax.errors import JaxRuntimeError

from e5jax.distributed.heartbeat import Heartbeat
from e5jax.distributed.process import ProcessInfo, listens_at
from e5jax.distributed.signals import Signals
from e5jax.errors import DONE, STOPPED, WATCHDOG, ConfigError

EXIT, STOP, READ = "e5jax/exit", "e5jax/stop", "e5jax/seen/"
ANSWER = 4.0  # seconds that the service has to store the exit message
READING = 2.0  # of these, seconds that process 0 waits for the others to read the message
EXITING = 0.5  # and then for them to exit
LEAVING = 60  # seconds within which all processes reach the end
LISTENING = 86_400_000  # milliseconds of one wait for the exit message
SHOWN = 3  # differences in an error message


class Exit(NamedTuple):
    """The message that ends a run: which process ends it for all, its exit code, and the reason."""

    process: int
    code: int
    why: str


class Process:
    """One process of a run: its rank, heartbeat and signals, and how it agrees with the others.

    Process 0 of 1 until it joins others (see `Watchdog`).
    """

    def __init__(
        self,
        info: ProcessInfo = ProcessInfo(),  # noqa: B008  immutable
        heartbeat: Heartbeat | None = None,
        signals: Signals | None = None,
    ):
        self.info = info
        self.heartbeat, self.signals = heartbeat or Heartbeat(), signals or Signals()
        self._joined = False
        self._patience = 0.0  # seconds to wait for the other processes
        self._uses: Counter[str] = Counter()
        self._listener = threading.Thread(target=self._listen, name="exit", daemon=True)

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, which writes the files that only one process may write."""
        return self.info.process == 0

    def join(self, start: int, heartbeat: int) -> None:
        """Waits up to `start` seconds for the other processes.

        From then on JAX aborts every process if one is silent for `heartbeat` seconds.
        """
        # JAX's own preemption service would take SIGTERM away from `signals`.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            self.info.coordinator,
            self.info.processes,
            self.info.process,
            coordinator_bind_address=listens_at(self.info) if self.is_first else None,
            initialization_timeout=start,
            heartbeat_timeout_seconds=heartbeat,
            shutdown_timeout_seconds=LEAVING,
        )
        self._joined, self._patience = True, float(start)
        self._listener.start()
        self.signals.notify_by(lambda why: self.announce_exit(STOPPED, why))

    def shut_down(self) -> None:
        """Shuts the coordination service down once all processes have reached the end."""
        self.signals.notify_by(None)
        if self.is_first:
            put(EXIT, json.dumps(Exit(0, DONE, "")))
        self._listener.join(LEAVING)
        jax.distributed.shutdown()
        self._joined = False

    # --- agreement -------------------------------------------------------------------------------

    def meet(self, name: str, seconds: float | None = None) -> None:
        """Waits for all processes: a barrier.

        `seconds` is the time limit, by default that of the start. JaxRuntimeError names the
        processes that did not arrive.
        """
        if self._joined:
            milliseconds = int((seconds or self._patience) * 1000)
            _client().wait_at_barrier(self._once(name), milliseconds)

    def agree(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns in every process what `compute` returns in process 0, which must be JSON."""
        if not self._joined:
            return compute()
        key = self._once(name)
        if self.is_first:
            put(key, json.dumps(compute()))
        return json.loads(_client().blocking_key_value_get(key, int(self._patience * 1000)))

    def check_same(self, values: Mapping[str, str]) -> None:
        """Raises ConfigError in every process if one has other values than process 0."""
        if not self._joined:
            return
        key = self._once("same")
        put(f"{key}/{self.info.process}", json.dumps(dict(values)))
        self.meet("same")
        differences = self.agree("same", lambda: self._differences(key, values))
        if differences:
            rest = len(differences) - SHOWN
            more = f"; and {rest} more" if rest > 0 else ""
            raise ConfigError(
                f"the processes of this run disagree: {'; '.join(differences[:SHOWN])}{more}; "
                "start all of them with the same code, configuration and data"
            )

    def _differences(self, key: str, values: Mapping[str, str]) -> list[str]:
        differences = []
        for process in range(1, self.info.processes):
            other = json.loads(get(f"{key}/{process}") or "{}")
            differences += [
                f"{name} is {values.get(name)} in process 0 "
                f"and {other.get(name)} in process {process}"
                for name in sorted(values.keys() | other.keys())
                if values.get(name) != other.get(name)
            ]
        return differences

    def stops(self, step: int) -> bool:
        """Whether to save `step` and exit. If one process is signalled, all stop at the same step.

        Call it once a step, after that step has been dispatched and the step before it is known to
        be finished. Then no process is more than one step ahead of another, so every process calls
        it once more before it finishes the step that the signalled process announces: `step + 2`.
        """
        if not self._joined:
            return self.signals.received
        if self.signals.received:
            put(STOP, str(step + 2))
        last = get(STOP)
        return last is not None and step >= int(last)

    def settle(self) -> None:
        """Waits until all processes have saved; a signal to one then counts for all."""
        self.meet("saved")
        if self._joined and get(STOP) is not None:
            self.signals.receive()

    def _once(self, name: str) -> str:
        """A fresh key for each use of a name. All processes use a name equally often, in order."""
        self._uses[name] += 1
        return f"e5jax/{name}/{self._uses[name]}"

    # --- exit ------------------------------------------------------------------------------------

    def leave(self, code: int, why: str) -> NoReturn:
        """Ends all processes with this code, or with that of the first exit announced."""
        os._exit(self.announce_exit(code, why))

    def announce_exit(self, code: int, why: str) -> int:
        """Makes the other processes exit, and returns the code with which all do.

        Returns within `ANSWER` seconds even if the service does not answer.
        """
        if not self._joined:
            return code
        codes: list[int] = []

        def announce() -> None:
            put(EXIT, json.dumps(Exit(self.info.process, code, why)))
            codes.append(Exit(*json.loads(get(EXIT) or "[]")).code)
            self._confirm()

        thread = threading.Thread(target=announce, daemon=True)
        thread.start()
        thread.join(ANSWER)
        return codes[0] if codes else code

    def _listen(self) -> None:
        while (text := _wait_for(EXIT)) is None:
            continue
        message = Exit(*json.loads(text))
        if message.code == DONE or message.process == self.info.process:
            return
        reason = f"e5jax: process {message.process} ends the run: {message.why}"
        print(reason, file=sys.stderr, flush=True)
        if message.code == WATCHDOG:
            faulthandler.dump_traceback(all_threads=True)
        self._confirm()
        os._exit(message.code)

    def _confirm(self) -> None:
        """Records that this process has read the exit message.

        Process 0 runs the service and exits last: JAX aborts a process that loses the service.
        """
        put(f"{READ}{self.info.process}", "")
        if self.is_first:
            deadline = time.monotonic() + READING
            while len(below(READ)) < self.info.processes and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(EXITING)


# --- the key-value store -------------------------------------------------------------------------


def put(key: str, value: str, *, over: bool = False) -> None:
    """Stores a value for all processes. An existing value stays unless `over`."""
    try:
        _client().key_value_set(key, value, allow_overwrite=over)
    except JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise


def get(key: str) -> str | None:
    """Returns the value of a key, or None."""
    try:
        return _client().key_value_try_get(key)
    except JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None


def below(prefix: str) -> dict[str, str]:
    """Returns the values of all keys with this prefix."""
    return dict(_client().key_value_dir_get(prefix))


def _wait_for(key: str) -> str | None:
    try:
        return _client().blocking_key_value_get(key, LISTENING)
    except JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        return None


def _client() -> Any:
    return distributed.global_state.client
