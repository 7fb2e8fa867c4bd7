"""What a generator run is asked for: the typed tree behind `e5jax synth --config=FILE`.

A weighted choice is a tuple of values, each with its weight behind an equals sign: `("clear=3", "ambiguous")`; without one
it weighs 1.
"""

from dataclasses import dataclass, field
from typing import Literal

Format = Literal["auto", "schema", "json", "text"]
Api = Literal["chat", "batch"]
DIFFICULTIES = ("high school", "college", "PhD")
LEVELS = ("elementary school", "high school", "college")
CLARITIES = ("clear", "understandable with some effort", "ambiguous")
UNITS = ("sentence", "phrase", "passage")


@dataclass(slots=True)
class ShortLong:
    """Retrieval: a short query, a long document. `share` is the family's part of all examples, relative to the others'."""

    share: float = 167.0
    query_type: tuple[str, ...] = ("extremely long-tail", "long-tail", "common")
    query_length: tuple[str, ...] = ("less than 5 words", "5 to 15 words", "at least 10 words")
    difficulty: tuple[str, ...] = DIFFICULTIES
    clarity: tuple[str, ...] = CLARITIES
    num_words: tuple[str, ...] = (
        "50 words",
        "100 words",
        "200 words",
        "300 words",
        "400 words",
        "500 words",
    )


@dataclass(slots=True)
class LongShort:
    """Classification: a text, its label."""

    share: float = 122.0
    num_words: tuple[str, ...] = (
        *(
            "less than 10 words",
            "at least 10 words",
            "at least 50 words",
            "at least 100 words",
            "at least 200 words",
        ),
    )
    difficulty: tuple[str, ...] = DIFFICULTIES
    clarity: tuple[str, ...] = CLARITIES


@dataclass(slots=True)
class ShortShort:
    """Matching of phrases and single sentences."""

    share: float = 13.0


@dataclass(slots=True)
class LongLong:
    """Matching of long documents."""

    share: float = 17.0
    num_words: tuple[str, ...] = ("at least 300 words",)


@dataclass(slots=True)
class Sts:
    """Texts of one language that mean more and less the same, on a scale from 1 to 5."""

    share: float = 99.0
    unit: tuple[str, ...] = UNITS
    high_score: tuple[str, ...] = ("4", "4.5", "5")
    low_score: tuple[str, ...] = ("2.5", "3", "3.5")
    difficulty: tuple[str, ...] = LEVELS


@dataclass(slots=True)
class Bitext:
    """A text, its translation, and a translation with faults."""

    share: float = 89.0
    unit: tuple[str, ...] = UNITS
    high_score: tuple[str, ...] = ("4", "4.5", "5")
    low_score: tuple[str, ...] = ("1.5", "2", "2.5")
    difficulty: tuple[str, ...] = LEVELS


@dataclass(slots=True)
class Grounded:
    """Queries for documents of one's own: JSONL with `text` (and `title`, `language`), one document a line. Not of the paper."""

    share: float = 0.0
    documents: str = ""
    instruction: str = "Given a search query, retrieve passages that answer it"
    query_type: tuple[str, ...] = ("extremely long-tail", "long-tail", "common")
    query_length: tuple[str, ...] = ("less than 5 words", "5 to 15 words", "at least 10 words")
    clarity: tuple[str, ...] = CLARITIES


@dataclass(slots=True)
class Families:
    """Shares and placeholders of each family. The shares are the examples of arXiv 2401.00368, figure 2, in thousands."""

    short_long: ShortLong = field(default_factory=ShortLong)
    long_short: LongShort = field(default_factory=LongShort)
    short_short: ShortShort = field(default_factory=ShortShort)
    long_long: LongLong = field(default_factory=LongLong)
    sts: Sts = field(default_factory=Sts)
    bitext: Bitext = field(default_factory=Bitext)
    grounded: Grounded = field(default_factory=Grounded)


@dataclass(slots=True)
class Tasks:
    """Where the tasks of the first four families come from."""

    per_call: int = 20  # that one brainstorming request asks for
    examples_a_task: float = (
        2.1  # arXiv 2401.00368: 319,000 examples of these families for 150,000 tasks
    )
    most_a_task: int = (
        50  # examples; where brainstorming gave too few tasks, the family stays below its share
    )
    topics: tuple[str, ...] = ()  # subjects to brainstorm about, one a request, in turn
    files: tuple[str, ...] = ()  # JSONL of {"family", "task"}, as `tasks.jsonl`; these come first
    brainstorm: bool = True  # False: only the tasks of the files
    avoid: tuple[
        str, ...
    ] = ()  # files of lines: instructions that no task may resemble, beside those of MTEB


@dataclass(slots=True)
class Hints:
    """Lines that a prompt gets beyond its template, each with its probability."""

    personas: tuple[str, ...] = ()  # who writes: "a nurse on the night shift"
    persona_rate: float = 0.5
    domains: tuple[str, ...] = ()  # what about: "agriculture"
    domain_rate: float = 0.5


@dataclass(slots=True)
class Sampling:
    """How the model samples."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = (
        4_096  # of a reply; a truncated one is asked for again with twice as many, once
    )


@dataclass(slots=True)
class Checks:
    """When a reply is taken."""

    attempts: int = 3  # times one example is asked for, at most
    length_slack: float = 3.0  # a text may have that many times fewer or more words than asked for
    language_confidence: float = 0.5  # of the identifier, below which a text counts as unchecked
    copied: float = 0.5  # share of a text's 8-grams that may come from the prompt
    near: float = 0.6  # Jaccard similarity from which two texts are duplicates (docs/decisions/0012-near-duplicates.md)
    answer_share: float = 0.02  # of a family's examples that may have the same positive, and never fewer than `answers`
    answers: int = 5


@dataclass(slots=True)
class Judge:
    """A model grades each example from 1 to 5. Not of the paper."""

    least: int = 3
    temperature: float = 0.0


@dataclass(slots=True)
class Relabel:
    """Mined records whose positive and hard negative a model chooses anew (Gecko, arXiv 2403.20327), instead of generating."""

    files: tuple[str, ...] = ()  # what `e5jax mine --negatives=N` wrote
    candidates: int = 10  # looked at for each record, its positives among them
    least: int = 4  # grade of a positive, of 5; records without one are dropped
    most: int = 2  # grade of a hard negative
    characters: int = 2_000  # of each candidate that the model sees
    temperature: float = 0.0


@dataclass(slots=True)
class LanguageModel:
    """A model that answers requests, and what it costs. Prices are money per million tokens, in any one currency."""

    name: str = ""
    share: float = 1.0  # of the requests, relative to the other models'
    prompt_price: float | None = None
    completion_price: float | None = None
    batch_price: float = (
        0.5  # of a token asked for through the Batch API, relative to the prices above
    )


@dataclass(slots=True)
class Endpoint:
    """Where requests go: OpenAI, Azure, or anything that speaks its protocol. Keys come from the environment or a file only."""

    models: tuple[LanguageModel, ...] = ()
    base_url: str = (
        ""  # empty: OPENAI_BASE_URL, or OpenAI's own; demo: canned replies, from this machine
    )
    azure_version: str = ""  # the `api-version`: `base_url` is then the address of an Azure resource, models its deployments
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the key
    key_file: str = ""  # instead of the variable
    headers: tuple[
        str, ...
    ] = ()  # `Name: value`, where `$NAME` as value stands for that environment variable
    plain_http: bool = False  # True: keys and texts may go unencrypted to another machine
    proxies: bool = False  # True: HTTPS_PROXY and the like are heeded
    api: Api = "chat"  # batch: the Batch API, cheaper and within a day; `concurrency` is then the most requests of a batch
    poll: float = 30.0  # seconds between two looks at a batch
    format: Format = (
        "auto"  # how a reply is held to its schema; auto: the best that the endpoint takes
    )
    concurrency: int = 64  # requests on their way at any time
    requests_a_minute: int = 0  # 0: what the endpoint allows is found out
    tokens_a_minute: int = 0
    timeout: float = (
        300.0  # seconds for one request, from the first byte sent to the last one received
    )
    tries: int = 8  # of one request, before it is given up for this run
    patience: float = 600.0  # seconds without any answer, after which the run stops
    reply_bytes: int = 1_000_000  # the longest body that is read


@dataclass(slots=True)
class Budget:
    """What a run may use up, earlier runs of the same journal included. It is overrun by no more than what is on its way."""

    money: float | None = None
    tokens: int | None = None
    requests: int | None = None


@dataclass(slots=True)
class Synth:
    """A run of the generator."""

    seed: int = 0
    examples: int = 507_000
    families: Families = field(default_factory=Families)
    languages: tuple[str, ...] = ()  # weighted ISO codes; empty: the weights of languages.tsv
    tasks: Tasks = field(default_factory=Tasks)
    hints: Hints = field(default_factory=Hints)
    sampling: Sampling = field(default_factory=Sampling)
    checks: Checks = field(default_factory=Checks)
    judge: Judge | None = None
    relabel: Relabel | None = None
    endpoint: Endpoint = field(default_factory=Endpoint)
    budget: Budget = field(default_factory=Budget)
