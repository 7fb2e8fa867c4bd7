"""A session that answers out of its head: good replies in English as the schema asks for, and others on demand."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from e5jax.llm_client.request import Failure, Reply, Request
from e5jax.synth.sampling import seeded
from e5jax.synth.text_spec import parse_description

TEXT = """about above across after again against almost along already although always among animal another answer around ask
away because become before began begin behind being believe below better between beyond bird black blue boat body book
both bottle bring brother brought build built busy buy call came car care carry cause certain change child church city
clear close cold color come common company complete consider contain country course cover cut dark daughter day deep
did different door down draw dress drive dry during each early earth east eat eight either end enough evening every
example eye face fact family far farm father feel few field figure fill final find fine fire first fish five floor fly
follow food foot force forest form found four free friend front full game garden gave general girl give glass gold
good great green ground group grow half hand happen hard have head hear heart heat heavy help high hill hold home
horse hot hour house hundred idea inch include interest island just keep kind king knew know land language large last
late laugh lead learn leave left less letter light line list listen little live long look love machine made many mark
market matter mean measure might mile mind minute money month moon morning mother mountain move much music must name
near need never new next night north note nothing notice now number object ocean offer often old once only open order
other paper part pass pattern people perhaps person picture piece place plain plan plant play point power present
problem produce question quick quite rain read ready real record red remember rest river road rock room round"""
WORDS = TEXT.split()


def words(random: Random, count: int) -> str:
    """A text of that many English words."""
    return " ".join(WORDS[int(random.random() * len(WORDS))] for _ in range(count))


def good(request: Request) -> str:
    """A reply that every check takes, unless it is asked for the impossible. It depends on the request's key only."""
    random = seeded(*request.key)
    assert request.schema is not None
    return json.dumps(
        {name: _value(shape, random) for name, shape in request.schema["properties"].items()}
    )


def _value(shape: dict[str, Any], random: Random) -> Any:
    if shape["type"] == "array":
        return [_value(shape["items"], random) for _ in range(20)]
    if shape["type"] == "integer":
        return 3
    wanted = parse_description(shape["description"])
    assert wanted is not None
    return words(random, max(wanted.least, min(wanted.most, 8 * wanted.least, wanted.least + 12)))


class Scripted:
    """`say` gives text and finish of a reply, or None for a failure. With `shuffle` replies arrive in a random order."""

    def __init__(
        self,
        say: Callable[[Request], tuple[str, str] | str | None] = good,
        shuffle: Random | None = None,
    ):
        self.say = say
        self.shuffle = shuffle
        self.asked: Counter[tuple[str, int]] = Counter()
        self.requests: list[Request] = []

    async def complete(self, request: Request) -> Reply | Failure:
        self.asked[request.key] += 1
        self.requests.append(request)
        for _ in range(0 if self.shuffle is None else self.shuffle.randrange(20)):
            await asyncio.sleep(0)
        said = self.say(request)
        if said is None:
            return Failure(
                request.id, request.attempt, "bad-request", "the scripted session refuses"
            )
        text, finish = (said, "stop") if isinstance(said, str) else said
        return Reply(request.id, request.attempt, text, finish, "scripted", 100, len(text.split()))

    def stop(self, why: str) -> None:
        raise NotImplementedError(why)

    def totals(self) -> dict[str, Any]:
        return {
            "requests": self.asked.total(),
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "money": None,
        }
