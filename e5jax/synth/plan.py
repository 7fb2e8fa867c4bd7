"""The plan of a run: which examples are asked for, and with which words. A pure function of seed, configuration and tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from random import Random
from typing import Any, NamedTuple

from e5jax.data.records import Example
from e5jax.datasets.normalise import read
from e5jax.errors import ConfigError
from e5jax.llm_client.request import Message, Request
from e5jax.synth.config import Hints, Synth
from e5jax.synth.families import FAMILIES, Family, schema, wanted
from e5jax.synth.languages import choices as language_choices
from e5jax.synth.languages import table
from e5jax.synth.prompts import DOCUMENT, HINT, TASK, examples, fill, quoted, quoted_list, templates
from e5jax.synth.sampling import Choices, apportion, parse, seeded
from e5jax.synth.text_spec import Wanted

SHOWN = 3  # example tasks in a brainstorming prompt
NOT_DRAWN = {"share", "documents", "instruction"}  # fields of a family that are no placeholders


class Document(NamedTuple):
    """A text of the user's own that a query is wanted for."""

    text: str
    language: str  # empty: drawn as for any example


class Slot(NamedTuple):
    """The place of one example. Family, task and languages stay the same however often it is asked for."""

    family: Family
    number: int
    instruction: str
    language: str
    target: str = ""  # second language of a pair
    document: str = ""

    @property
    def id(self) -> str:
        return f"{self.family.name}/{self.number:06d}"


class Asked(NamedTuple):
    """One asking for one example."""

    slot: Slot
    attempt: int
    template: int
    choices: dict[str, str]
    wanted: dict[str, Wanted]
    given: tuple[str, ...]  # texts that the model saw and should not repeat
    request: Request


def shares(config: Synth) -> list[float]:
    """Of each family, in the table's order."""
    return [settings(config, family).share for family in FAMILIES]


def counts(config: Synth) -> dict[str, int]:
    """Examples of each family."""
    return dict(
        zip(
            (family.name for family in FAMILIES),
            apportion(config.examples, shares(config)),
            strict=True,
        )
    )


def settings(config: Synth, family: Family) -> Any:
    """The family's part of the configuration."""
    return {field.name: getattr(config.families, field.name) for field in fields(config.families)}[
        family.field
    ]


def drawn(config: Synth, family: Family) -> dict[str, Choices]:
    """The family's placeholders, by name. Raises ConfigError."""
    found = {}
    holder = settings(config, family)
    for field in fields(holder):
        if field.name not in NOT_DRAWN:
            try:
                found[field.name] = parse(getattr(holder, field.name))
            except ValueError as error:
                raise ConfigError(
                    f"config.families.{family.field}.{field.name}: {error}"
                ) from error
    return found


class Plan:
    """Makes slots and requests. Holds the parsed choices of a configuration, nothing that changes."""

    def __init__(self, config: Synth, documents: Sequence[Document] = ()):
        self.config = config
        self.documents = documents
        self.languages = language_choices(config.languages)
        self.others = (
            {code: self.languages.without(code) for code in self.languages.values}
            if self._pairs()
            else {}
        )
        self.placeholders = {
            family.name: drawn(config, family)
            for family in FAMILIES
            if settings(config, family).share
        }

    def _pairs(self) -> bool:
        return any(family.pairs and settings(self.config, family).share for family in FAMILIES)

    def slots(self, family: Family, tasks: Sequence[str]) -> Iterator[Slot]:
        """The family's examples. Tasks take turns; with too few of them there are fewer examples."""
        total = counts(self.config)[family.name]
        if family.brainstorms:
            total = min(total, len(tasks) * self.config.tasks.most_a_task)
        for number in range(total):
            yield self._slot(family, number, tasks)

    def _slot(self, family: Family, number: int, tasks: Sequence[str]) -> Slot:
        random = seeded(self.config.seed, family.name, number, "slot")
        language = self.languages.pick(random)
        if family.name == "grounded":
            document = self.documents[number % len(self.documents)]
            instruction = self.config.families.grounded.instruction
            return Slot(
                family, number, instruction, document.language or language, document=document.text
            )
        instruction = tasks[number % len(tasks)] if family.brainstorms else family.instruction
        second = self.others[language].pick(random) if family.pairs else ""
        return Slot(family, number, instruction, language, second)

    def ask(self, slot: Slot, attempt: int = 0, doubled: bool = False) -> Asked:
        """The request for a slot. Each attempt draws placeholders and template anew; `doubled` allows twice the tokens."""
        family = slot.family
        random = seeded(self.config.seed, slot.id, attempt, "ask")
        drawn = {
            name: choices.pick(random) for name, choices in self.placeholders[family.name].items()
        }
        if family.name == "grounded":
            drawn["document"] = f"{max(read(slot.document).length, 5):.0f} words"
        fields = wanted(family, drawn, slot.language, slot.target)
        known = templates(f"{family.name}.generate")
        number = int(random.random() * len(known))
        names = table()
        text = fill(
            known[number],
            {
                **drawn,
                "task": quoted(slot.instruction, TASK),
                "language": names[slot.language].name,
                "source": names[slot.language].name,
                "target": names[slot.target].name if slot.target else "",
                "document": quoted(slot.document, DOCUMENT),
            },
        )
        return Asked(
            slot,
            attempt,
            number,
            drawn,
            fields,
            (known[number], slot.instruction if family.brainstorms else "", slot.document),
            self.request(
                f"{slot.id}/generate",
                text + _hints(self.config.hints, random),
                schema(family, fields),
                attempt,
                doubled,
            ),
        )

    def request(
        self,
        name: str,
        text: str,
        shape: Mapping[str, Any],
        attempt: int,
        doubled: bool = False,
        temperature: float | None = None,
    ) -> Request:
        """A request with the configuration's sampling."""
        sampling = self.config.sampling
        return Request(
            name,
            (Message("system", templates("system")[0]), Message("user", text)),
            shape,
            sampling.temperature if temperature is None else temperature,
            sampling.top_p,
            sampling.max_tokens * (2 if doubled else 1),
            attempt,
        )

    def brainstorm(
        self, family: Family, number: int, attempt: int = 0, doubled: bool = False
    ) -> Request:
        """A request for tasks. Topics take turns."""
        tasks = self.config.tasks
        random = seeded(self.config.seed, family.name, number, attempt, "brainstorm")
        known = templates(f"{family.name}.brainstorm")
        shown = _sample(examples(family.name), SHOWN, random)
        text = fill(
            known[int(random.random() * len(known))],
            {"count": str(tasks.per_call), "examples": quoted_list(shown, TASK)},
        )
        if tasks.topics:
            text += "\n\n" + fill(
                templates("topic")[0],
                {"topic": quoted(tasks.topics[number % len(tasks.topics)], HINT)},
            )
        return self.request(
            f"{family.name}/{number:06d}/brainstorm", text, _tasks_schema(), attempt, doubled
        )


def example(asked: Asked, values: Mapping[str, str]) -> Example:
    """The training example that a checked reply gives."""
    slot = asked.slot
    positive, negative = (
        part and values[part.name] for part in (slot.family.positive, slot.family.negative)
    )
    return Example(
        slot.id,
        values[slot.family.query.name],
        (positive or slot.document,),
        (negative,) if negative else (),
        slot.instruction,
        slot.language,
        f"synth/{slot.family.name}",
    )


def _tasks_schema() -> dict[str, Any]:
    listed = {
        "type": "array",
        "items": {"type": "string", "description": "an instruction. Language: en. Words: 6 to 30."},
    }
    return {
        "type": "object",
        "properties": {"tasks": listed},
        "required": ["tasks"],
        "additionalProperties": False,
    }


def _sample(texts: Sequence[str], count: int, random: Random) -> list[str]:
    order = sorted((random.random(), text) for text in texts)
    return [text for _, text in order[:count]]


def _hints(hints: Hints, random: Random) -> str:
    """Lines about who writes and what about, or nothing."""
    lines = ""
    for name, texts, rate in [
        ("persona", hints.personas, hints.persona_rate),
        ("domain", hints.domains, hints.domain_rate),
    ]:
        if texts and random.random() < rate:
            picked = texts[int(random.random() * len(texts))]
            lines += "\n\n" + fill(templates(name)[0], {name: quoted(picked, HINT)})
    return lines
