"""What a generator run is asked for: the typed tree behind `e5jax synth --config=FILE`.

A weighted choice is a tuple of values, each with its weight behind an equals sign: `("clear=3", "ambiguous")`; without one
it weighs 1.
"""

from dataclasses import dataclass, field

from e5jax.llm_client.config import Budget, Endpoint

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
