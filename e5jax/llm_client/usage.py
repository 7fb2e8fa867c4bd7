"""What a run has used up: the journal's lines, added up. What is counted live is what a replay counts, by construction."""

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from e5jax.errors import ConfigError
from e5jax.llm_client.config import Budget, LanguageModel
from e5jax.llm_client.faults import FAULTS


class Try(NamedTuple):
    """A request that was announced and has no end yet."""

    model: str
    batch: bool
    prompt: int  # tokens, estimated
    completion: int  # at most
    number: int | None  # that its mark has


class Usage:
    """Counts by `add`ing lines. Of a try whose answer was lost it assumes the dearest: billed, with as many tokens as allowed."""

    def __init__(self, models: Iterable[LanguageModel]):
        self._prices = {model.name: model for model in models}
        self._open: dict[tuple[str, int], Try] = {}
        self._tokens: defaultdict[tuple[str, bool], list[int]] = defaultdict(lambda: [0, 0])
        self._uncertain: defaultdict[tuple[str, bool], list[int]] = defaultdict(lambda: [0, 0])
        self.requests = self.replies = self.sessions = self.in_flight_at_crash = 0
        self.replies_by_model: Counter[str] = Counter()
        self.finishes: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    def add(self, line: Mapping[str, Any]) -> None:
        """One line of the journal, in its order."""
        match line["kind"]:
            case "start":
                self._lose()
                self.sessions += 1
            case "try":
                self.requests += 1
                self._open[_key(line)] = Try(
                    line["model"],
                    bool(line.get("batch")),
                    line["prompt"],
                    line["completion"],
                    line.get("number"),
                )
            case "withdrawn":  # was announced, and not sent
                self.requests -= self._open.pop(_key(line), None) is not None
            case "reply":
                self._reply(line)
            case "fault":
                self._fault(line)
            case "failure":
                self.failures[line["reason"]] += 1

    def _lose(self) -> None:
        """An earlier run ended while these were on their way. Those of a batch are still to be fetched."""
        for key, lost in list(self._open.items()):
            if not lost.batch:
                self.in_flight_at_crash += 1
                self._doubt(self._open.pop(key))

    def _doubt(self, ended: Try) -> None:
        tokens = self._uncertain[ended.model, ended.batch]
        tokens[0] += ended.prompt
        tokens[1] += ended.completion

    def _reply(self, line: Mapping[str, Any]) -> None:
        ended = self._open.pop(_key(line), None)
        tokens = self._tokens[line["model"], ended is not None and ended.batch]
        tokens[0] += line["prompt_tokens"]
        tokens[1] += line["completion_tokens"]
        self.replies += 1
        self.replies_by_model[line["model"]] += 1
        self.finishes[line["finish"]] += 1

    def _fault(self, line: Mapping[str, Any]) -> None:
        self.faults[line["fault"]] += 1
        if (ended := self._open.pop(_key(line), None)) and FAULTS[line["fault"]].billed == "maybe":
            self._doubt(ended)

    def unsent(self, sent: Collection[int] | None) -> list[tuple[str, int]]:
        """Requests of the session that ended that were announced and, by the numbers of all that left, did not leave."""
        if sent is None:
            return []
        return [
            key
            for key, lost in self._open.items()
            if lost.number is not None and lost.number not in sent
        ]

    def is_open(self, key: tuple[str, int]) -> bool:
        """Whether a request was announced and has no end yet."""
        return key in self._open

    @property
    def tokens(self) -> int:
        """Billed and possibly billed."""
        return sum(map(sum, (*self._tokens.values(), *self._uncertain.values())))

    @property
    def money(self) -> float | None:
        """What they cost; None without prices."""
        if any(
            model.prompt_price is None or model.completion_price is None
            for model in self._prices.values()
        ):
            return None
        return sum(
            self._cost(*key, *tokens)
            for part in (self._tokens, self._uncertain)
            for key, tokens in part.items()
        )

    def _cost(self, name: str, batch: bool, prompt: int, completion: int) -> float:
        model = self._prices.get(name) or next(
            iter(self._prices.values())
        )  # a model that the configuration no longer has
        factor = model.batch_price if batch else 1.0
        return (
            factor
            * (prompt * (model.prompt_price or 0) + completion * (model.completion_price or 0))
            / 1e6
        )

    def spent(self, budget: Budget, requests: int) -> str | None:
        """Which limit is reached, for people, or None; `requests` may be ahead of the lines."""
        for name, used, limit in [
            ("requests", requests, budget.requests),
            ("tokens", self.tokens, budget.tokens),
            ("money", self.money, budget.money),
        ]:
            if limit is not None and used is not None and used >= limit:
                return f"budget.{name}={limit:,}: {used:,.6g} used; raise it to go on"
        return None

    def totals(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        prompt, completion = (sum(tokens[i] for tokens in self._tokens.values()) for i in (0, 1))
        unsure = [sum(tokens[i] for tokens in self._uncertain.values()) for i in (0, 1)]
        return {
            "requests": self.requests,
            "replies": self.replies,
            "replies_by_model": dict(sorted(self.replies_by_model.items())),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "money": self.money,
            "finishes": dict(sorted(self.finishes.items())),
            "retries": {
                name: n for name, n in sorted(self.faults.items()) if FAULTS[name].action == "retry"
            },
            "faults": dict(sorted(self.faults.items())),
            "failures": dict(sorted(self.failures.items())),
            "in_flight": len(self._open),
            "possibly_billed": {
                "in_flight_at_crash": self.in_flight_at_crash,
                "unanswered": sum(
                    n for name, n in self.faults.items() if FAULTS[name].billed == "maybe"
                ),
                "tokens_at_most": sum(unsure),
            },
            "sessions": self.sessions,
        }


def check_budget(budget: Budget, models: Iterable[LanguageModel]) -> None:
    """Numbers that can be reached; one in money needs all prices. Raises ConfigError."""
    for name, limit in [
        ("money", budget.money),
        ("tokens", budget.tokens),
        ("requests", budget.requests),
    ]:
        if limit is not None and not 0 <= limit < math.inf:
            raise ConfigError(
                f"budget.{name}={limit}: must be at least 0 and finite; none for no limit"
            )
    missing = [
        model.name
        for model in models
        if model.prompt_price is None or model.completion_price is None
    ]
    if budget.money is not None and missing:
        raise ConfigError(
            f"budget.money={budget.money}: set prompt_price and completion_price of {', '.join(missing)}"
        )


def _key(line: Mapping[str, Any]) -> tuple[str, int]:
    return line["id"], line["attempt"]
