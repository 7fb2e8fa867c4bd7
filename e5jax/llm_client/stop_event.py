"""What ends a session: set once, heeded by everyone, waking whoever sleeps."""

import asyncio

from e5jax.llm_client.request import Stop


class StopEvent:
    """The first reason stays."""

    def __init__(self) -> None:
        self._pulled = asyncio.Event()
        self._why: Stop | None = None

    def pull(self, why: str) -> None:
        self._why = self._why or Stop(why)
        self._pulled.set()

    def check(self) -> None:
        """Raises Stop if there is a reason to."""
        if self._why is not None:
            raise Stop(*self._why.args)

    async def sleep(self, seconds: float) -> None:
        """Raises Stop as soon as there is one."""
        try:
            await asyncio.wait_for(self._pulled.wait(), seconds)
        except TimeoutError:
            return
        self.check()
