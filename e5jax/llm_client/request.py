"""What the generator asks a language model, and what comes back. The method makes requests, a session answers them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from e5jax.errors import RunError


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str  # system or user
    content: str


class Request(NamedTuple):
    """One question to a model. Its key is what the journal knows it by."""

    id: str  # the same in every run: short-long/000123/generate
    messages: tuple[Message, ...]
    schema: Mapping[str, Any] | None  # JSON schema of the reply; None: free text
    temperature: float
    top_p: float
    max_tokens: int
    attempt: int = 0  # raised to ask again for a reply that was no good

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.attempt


class Reply(NamedTuple):
    """What a model said, paid for and in the journal."""

    id: str
    attempt: int
    text: str
    finish: str  # stop, or the name of the fault: length, content_filter, refusal, …
    model: str
    prompt_tokens: int
    completion_tokens: int


class Failure(NamedTuple):
    """A request that got no reply."""

    id: str
    attempt: int
    reason: str  # name of a fault
    detail: str  # for people; holds no key


class Stop(RunError):  # noqa: N818  an end, not a mistake
    """The run cannot go on: the budget is spent, the key is refused, the endpoint is gone. Everything paid for is journalled."""


class Session(Protocol):
    """Answers requests, from the journal those that were answered before."""

    async def complete(self, request: Request) -> Reply | Failure:
        """Raises Stop, for this request and every later one."""
        ...

    def stop(self, why: str) -> None:
        """Sends nothing more: what is on its way arrives, everybody else gets a Stop."""
        ...

    def totals(self) -> dict[str, Any]:
        """Requests, tokens, money, retries and failures so far, earlier runs of the journal included; ready for JSON."""
        ...
