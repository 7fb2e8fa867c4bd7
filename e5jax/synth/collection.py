"""What a run of the generator works with."""

from collections.abc import Callable
from typing import NamedTuple

from e5jax.llm_client.request import Session
from e5jax.synth.answer import Halt
from e5jax.synth.config import Synth
from e5jax.synth.disk_dict import DiskDict
from e5jax.synth.plan import Plan
from e5jax.synth.reasons import Rejection
from e5jax.synth.tasks import Tasks


class Collection(NamedTuple):
    """All of a run but the files."""

    config: Synth
    plan: Plan
    tasks: Tasks
    shelf: DiskDict  # by slot: a line of details.jsonl with the example in it
    rejected: list[Rejection]
    dropped: dict[str, str]  # slot: last reason
    halt: Halt
    session: Session
    progress: Callable[[str, int, int], object]  # phase, done, of how many

    @property
    def workers(self) -> int:
        """Enough that none of the session's connections waits for work."""
        return 2 * self.config.endpoint.concurrency
