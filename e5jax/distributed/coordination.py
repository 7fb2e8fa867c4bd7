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
from typing import Any, ClassVar, NamedTuple, NoReturn

import jax
from jax._src import distributed  # the store has no public name; Orbax imports it this way too
from jax.errors import JaxRuntimeError

from e5jax.distributed import signals
from e5jax.distributed.process import ProcessInfo, listens_at
from e5jax.errors import DONE, STOPPED, WATCHDOG, ConfigError

EXIT, STOP, SEEN = "e5jax/exit", "e5jax/stop", "e5jax/seen/"
ANSWER = 4.0  # seconds that the service has to store the exit message
HEARING = 2.0  # of these, seconds that process 0 waits for the others to read the message
PARTING = 0.5  # and then for them to exit
LEAVING = 60  # seconds within which all processes reach the end
LISTENING = 86_400_000  # milliseconds of one wait for the exit message
SHOWN = 3  # differences in an error message


class Exit(NamedTuple):
    """The message that ends a run: which process ends it for all, its exit code, and the reason."""

    process: int
    code: int
    why: str


class _Own:
    """State of this process, which has one JAX runtime."""

    process_info = ProcessInfo()
    patience = 0.0  # seconds to wait for the other processes
    counts: ClassVar[Counter[str]] = Counter()
    listener: threading.Thread | None = None


def process_info() -> ProcessInfo:
    """Returns the rank of this process: 0 of 1 unless it has joined others."""
    return _Own.process_info


def first() -> bool:
    """Whether this is process 0, which writes the files that only one process may write."""
    return _Own.process_info.process == 0


def join(info: ProcessInfo, start: int, heartbeat: int) -> None:
    """Waits up to `start` seconds for the other processes.

    From then on JAX aborts every process if one is silent for `heartbeat` seconds.
    """
    # JAX's own preemption service would take SIGTERM away from `signals`.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        info.coordinator,
        info.processes,
        info.process,
        coordinator_bind_address=listens_at(info) if info.process == 0 else None,
        initialization_timeout=start,
        heartbeat_timeout_seconds=heartbeat,
        shutdown_timeout_seconds=LEAVING,
    )
    _Own.process_info, _Own.patience = info, float(start)
    _Own.counts.clear()
    _Own.listener = threading.Thread(target=_listen, name="exit", daemon=True)
    _Own.listener.start()
    signals.before_leaving(lambda why: announce_exit(STOPPED, why))


def part() -> None:
    """Shuts the coordination service down once all processes have reached the end."""
    signals.before_leaving(None)
    if first():
        put(EXIT, json.dumps(Exit(0, DONE, "")))
    assert _Own.listener is not None, "it has joined"
    _Own.listener.join(LEAVING)
    jax.distributed.shutdown()
    _Own.process_info = ProcessInfo()


# --- agreement -----------------------------------------------------------------------------------


def meet(name: str, seconds: float | None = None) -> None:
    """Waits for all processes: a barrier.

    `seconds` is the time limit, by default that of the start. JaxRuntimeError names the processes
    that did not arrive.
    """
    if _Own.process_info.processes > 1:
        _client().wait_at_barrier(_once(name), int((seconds or _Own.patience) * 1000))


def agree(name: str, find: Callable[[], Any]) -> Any:
    """Returns in every process what `find` returns in process 0, which must be JSON."""
    if _Own.process_info.processes == 1:
        return find()
    key = _once(name)
    if first():
        put(key, json.dumps(find()))
    return json.loads(_client().blocking_key_value_get(key, int(_Own.patience * 1000)))


def check_same(values: Mapping[str, str]) -> None:
    """Raises ConfigError in every process if one has other values than process 0."""
    if _Own.process_info.processes == 1:
        return
    key = _once("same")
    put(f"{key}/{_Own.process_info.process}", json.dumps(dict(values)))
    meet("same")
    differences = agree("same", lambda: _differences(key, values))
    if differences:
        rest = len(differences) - SHOWN
        more = f"; and {rest} more" if rest > 0 else ""
        raise ConfigError(
            f"the processes of this run disagree: {'; '.join(differences[:SHOWN])}{more}; "
            "start all of them with the same code, configuration and data"
        )


def _differences(key: str, values: Mapping[str, str]) -> list[str]:
    differences = []
    for process in range(1, _Own.process_info.processes):
        other = json.loads(get(f"{key}/{process}") or "{}")
        differences += [
            f"{name} is {values.get(name)} in process 0 and {other.get(name)} in process {process}"
            for name in sorted(values.keys() | other.keys())
            if values.get(name) != other.get(name)
        ]
    return differences


def stops(step: int) -> bool:
    """Whether to save `step` and exit. If one process is signalled, all stop at the same step.

    Call it once a step, after that step has been dispatched and the step before it is known to be
    finished. Then no process is more than one step ahead of another, so every process calls it once
    more before it finishes the step that the signalled process announces, which is `step + 2`.
    """
    if _Own.process_info.processes == 1:
        return signals.received()
    if signals.received():
        put(STOP, str(step + 2))
    last = get(STOP)
    return last is not None and step >= int(last)


def settle() -> None:
    """Waits until all processes have saved; a signal to one then counts for all."""
    meet("saved")
    if _Own.process_info.processes > 1 and get(STOP) is not None:
        signals.receive()


# --- exit ----------------------------------------------------------------------------------------


def leave(code: int, why: str) -> NoReturn:
    """Ends all processes with this code, or with the code of whoever announced an exit first."""
    os._exit(announce_exit(code, why))


def announce_exit(code: int, why: str) -> int:
    """Makes the other processes exit, and returns the code with which all do.

    Returns within `ANSWER` seconds even if the service does not answer.
    """
    here = _Own.process_info
    if here.processes == 1:
        return code
    codes: list[int] = []

    def announce() -> None:
        put(EXIT, json.dumps(Exit(here.process, code, why)))
        codes.append(Exit(*json.loads(get(EXIT) or "[]")).code)
        _confirm()

    thread = threading.Thread(target=announce, daemon=True)
    thread.start()
    thread.join(ANSWER)
    return codes[0] if codes else code


def _listen() -> None:
    while (text := _wait_for(EXIT)) is None:
        continue
    message = Exit(*json.loads(text))
    if message.code == DONE or message.process == _Own.process_info.process:
        return
    print(
        f"e5jax: process {message.process} ends the run: {message.why}", file=sys.stderr, flush=True
    )
    if message.code == WATCHDOG:
        faulthandler.dump_traceback(all_threads=True)
    _confirm()
    os._exit(message.code)


def _confirm() -> None:
    """Records that this process has read the exit message.

    Process 0 runs the service and exits last: JAX aborts a process that loses the service.
    """
    here = _Own.process_info
    put(f"{SEEN}{here.process}", "")
    if here.process == 0:
        deadline = time.monotonic() + HEARING
        while len(below(SEEN)) < here.processes and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(PARTING)


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


def _once(name: str) -> str:
    """A fresh key for each use of a name. All processes use a name equally often, in one order."""
    _Own.counts[name] += 1
    return f"e5jax/{name}/{_Own.counts[name]}"
