"""A trace of some steps of a run, for xprof, TensorBoard or Perfetto (docs/profiling.md)."""

from pathlib import Path
from types import TracebackType
from typing import Self

import jax

from e5jax.config import Profile


class Trace:
    """JAX's profiler around the steps that the configuration asks for; every process writes what its own devices did.

    Leaving the `with` closes a trace that is still open, also when the run fails or is interrupted.
    """

    def __init__(self, profile: Profile, folder: Path, name: str):
        self._wanted = range(profile.first, profile.first + profile.steps)
        self._folder, self._name = folder, name
        self._taken: list[int] = []  # steps of the open trace

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._taken:
            self._close()

    def turns(self, number: int) -> bool:
        """True when the trace begins or ends before this step: devices have to be idle then."""
        return (number in self._wanted) != bool(self._taken)

    def turn(self, number: int) -> None:
        """Begins or ends the trace."""
        if self._taken:
            self._close()
            return
        options = jax.profiler.ProfileOptions()
        # A time stamp, the default, may differ from host to host, and a viewer would not see one run in them.
        options.session_id = f"step_{number}"
        # Python's own calls are not recorded: the hook for them makes threads fail that start at the same moment, such as a save's.
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._folder, profiler_options=options)
        self._taken = [number]

    def step(self, number: int) -> jax.profiler.StepTraceAnnotation:
        """Marks what belongs to step `number`."""
        if self._taken:
            self._taken.append(number)
        return jax.profiler.StepTraceAnnotation(self._name, step_num=number)

    def _close(self) -> None:
        first, last, self._taken = self._taken[0], self._taken[-1], []
        jax.profiler.stop_trace()
        if jax.process_index() == 0:
            print(
                f"{self._name}: trace of steps {first} to {last} in {self._folder}; "
                f"look at it with `pip install xprof` and `xprof --logdir={self._folder}`",
                flush=True,
            )
