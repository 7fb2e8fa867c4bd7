"""The processes of a run: how they find each other, agree, and leave together. The only home of jax.distributed.

What processes tell each other goes through the key-value store of JAX's coordination service, beside the devices: an answer
never depends on a device that hangs, and every wait has an end. A run of one process asks nobody.
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
from jax._src import distributed  # the store has no public name; Orbax comes this way too
from jax.errors import JaxRuntimeError

from e5jax.distributed import signals
from e5jax.distributed.process import ProcessInfo, listens_at
from e5jax.errors import DONE, STOPPED, WATCHDOG, ConfigError

WORD, STOP, HEARD = "e5jax/word", "e5jax/stop", "e5jax/heard/"
ANSWER = 4.0  # seconds that whoever has the last word gives the service to take it
HEARING = 2.0  # of these, that process 0 gives the others to hear it
PARTING = 0.5  # and then to exit
LEAVING = 60  # seconds in which all come to the end
EAR = 86_400_000  # milliseconds of one wait for the last word
SHOWN = 3  # differences in a message


class Word(NamedTuple):
    """The last word of a run: which process ends it for all, with which exit code, and why."""

    process: int
    code: int
    why: str


class _Own:
    """What a process has one of, as it has one JAX."""

    process_info = ProcessInfo()
    patience = 0.0  # seconds that a process waits for the others
    counts: ClassVar[Counter[str]] = Counter()
    ear: threading.Thread | None = None


def process_info() -> ProcessInfo:
    """Where this process stands; alone, unless it has joined others."""
    return _Own.process_info


def first() -> bool:
    """Whether this process is the one that writes what only one may write."""
    return _Own.process_info.process == 0


def join(where: ProcessInfo, start: int, heartbeat: int) -> None:
    """Waits `start` seconds for the other processes to come. JAX aborts whoever misses one of them for `heartbeat` seconds."""
    jax.config.update(
        "jax_enable_preemption_service", False
    )  # it would take SIGTERM away from `notice`
    jax.distributed.initialize(
        where.coordinator,
        where.processes,
        where.process,
        coordinator_bind_address=listens_at(where) if where.process == 0 else None,
        initialization_timeout=start,
        heartbeat_timeout_seconds=heartbeat,
        shutdown_timeout_seconds=LEAVING,
    )
    _Own.process_info, _Own.patience = where, float(start)
    _Own.counts.clear()
    _Own.ear = threading.Thread(target=_hear, name="ear", daemon=True)
    _Own.ear.start()
    signals.before_leaving(lambda why: say(STOPPED, why))


def part() -> None:
    """Leaves the others, when all have come to the end."""
    signals.before_leaving(None)
    if first():
        put(WORD, json.dumps(Word(0, DONE, "")))
    assert _Own.ear is not None, "it has joined"
    _Own.ear.join(LEAVING)
    jax.distributed.shutdown()
    _Own.process_info = ProcessInfo()


# --- agreement -------------------------------------------------------------------------------------------------


def meet(name: str, seconds: float | None = None) -> None:
    """Waits for all processes; who does not come, by default in as long as it may take to start, is named in a JaxRuntimeError."""
    if _Own.process_info.processes > 1:
        _client().wait_at_barrier(_once(name), int((seconds or _Own.patience) * 1000))


def agree(name: str, find: Callable[[], Any]) -> Any:
    """What process 0 finds, as JSON takes it."""
    if _Own.process_info.processes == 1:
        return find()
    key = _once(name)
    if first():
        put(key, json.dumps(find()))
    return json.loads(_client().blocking_key_value_get(key, int(_Own.patience * 1000)))


def check_same(what: Mapping[str, str]) -> None:
    """Raises ConfigError, in every process, if one of them has other values than process 0. Names the first few."""
    if _Own.process_info.processes == 1:
        return
    key = _once("same")
    put(f"{key}/{_Own.process_info.process}", json.dumps(dict(what)))
    meet("same")
    found = agree("same", lambda: _differences(key, what))
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ConfigError(
            f"the processes of this run disagree: {'; '.join(found[:SHOWN])}{more}; "
            "start all of them with the same code, configuration and data"
        )


def _differences(key: str, what: Mapping[str, str]) -> list[str]:
    found = []
    for process in range(1, _Own.process_info.processes):
        other = json.loads(get(f"{key}/{process}") or "{}")
        changed = sorted(
            name for name in what.keys() | other.keys() if what.get(name) != other.get(name)
        )
        found += [
            f"{name} is {what.get(name)} in process 0 and {other.get(name)} in process {process}"
            for name in changed
        ]
    return found


def stops(step: int) -> bool:
    """Whether to save `step` and leave: when one process is told to, all stop at the same step.

    To be called once a step, after it has been started and the step before is known to be finished. Then no process is more than
    one step ahead of another, and all ask once more before they finish the next step but one after the notice.
    """
    if _Own.process_info.processes == 1:
        return signals.received()
    if signals.received():
        put(STOP, str(step + 2))
    agreed = get(STOP)
    return agreed is not None and step >= int(agreed)


def settle() -> None:
    """Waits until all have saved their last step; a notice to one process was then one to all."""
    meet("saved")
    if _Own.process_info.processes > 1 and get(STOP) is not None:
        signals.receive()


# --- the last word ---------------------------------------------------------------------------------------------


def leave(code: int, why: str) -> NoReturn:
    """Ends this process and all others with this code, unless another one has had the last word: then with that."""
    os._exit(say(code, why))


def say(code: int, why: str) -> int:
    """Makes the others exit, and returns the code with which all do. Takes no longer than `ANSWER`."""
    here = _Own.process_info
    if here.processes == 1:
        return code
    codes: list[int] = []

    def tell() -> None:
        put(WORD, json.dumps(Word(here.process, code, why)))
        codes.append(Word(*json.loads(get(WORD) or "[]")).code)
        _heard()

    telling = threading.Thread(
        target=tell, daemon=True
    )  # a service that does not answer keeps nobody here
    telling.start()
    telling.join(ANSWER)
    return codes[0] if codes else code


def _hear() -> None:
    while (text := _wait_for(WORD)) is None:
        continue
    word = Word(*json.loads(text))
    if word.code == DONE or word.process == _Own.process_info.process:
        return
    print(f"e5jax: process {word.process} ends the run: {word.why}", file=sys.stderr, flush=True)
    if word.code == WATCHDOG:
        faulthandler.dump_traceback(all_threads=True)
    _heard()
    os._exit(word.code)


def _heard() -> None:
    """Says that this process knows the last word. Process 0, who has the service, is the last to leave: JAX aborts who loses it."""
    here = _Own.process_info
    put(f"{HEARD}{here.process}", "")
    if here.process == 0:
        deadline = time.monotonic() + HEARING
        while len(below(HEARD)) < here.processes and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(PARTING)


# --- the store -------------------------------------------------------------------------------------------------


def put(key: str, value: str, *, over: bool = False) -> None:
    """Says something to all. What is there already stays, unless this goes `over` it."""
    try:
        _client().key_value_set(key, value, allow_overwrite=over)
    except JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise


def get(key: str) -> str | None:
    """What was said under this key, if anything."""
    try:
        return _client().key_value_try_get(key)
    except JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None


def below(prefix: str) -> dict[str, str]:
    """Everything that was said under keys that begin so."""
    return dict(_client().key_value_dir_get(prefix))


def _wait_for(key: str) -> str | None:
    try:
        return _client().blocking_key_value_get(key, EAR)
    except JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
        return None


def _client() -> Any:
    return distributed.global_state.client


def _once(name: str) -> str:
    """A key for this use of the name: all processes come to the same uses in the same order."""
    _Own.counts[name] += 1
    return f"e5jax/{name}/{_Own.counts[name]}"
