"""How far a run is: a bar on a terminal, now and then a line elsewhere."""

import sys
from typing import Self

from tqdm import tqdm

TENTHS = 10


class Progress:
    """Use with `with`."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._phase: tuple[str, int] = "", 0
        self._tenth = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """So many of this phase are done."""
        if (phase, total) != self._phase or done == 1:
            self.__exit__()
            self._phase, self._tenth = (phase, total), 0
            self._bar = tqdm(total=total, unit=f" {phase}", desc="synth", disable=None)
        if self._bar is not None and not self._bar.disable:
            self._bar.update(done - self._bar.n)
        elif done * TENTHS // total > self._tenth:
            self._tenth = done * TENTHS // total
            print(f"synth: {done:,} of {total:,} {phase}", file=sys.stderr, flush=True)
