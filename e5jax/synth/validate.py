"""Checks a generator's configuration: types, ranges, lists that have to be readable. Touches no network."""

import math
from collections.abc import Callable, Sequence

from e5jax.config.types import at_least, check_types
from e5jax.config.validate import SEEDS
from e5jax.errors import ConfigError
from e5jax.llm_client.keys import check_endpoint
from e5jax.llm_client.usage import check_budget
from e5jax.synth.config import Relabel, Synth
from e5jax.synth.families import FAMILIES, UNITS, Family, bounds
from e5jax.synth.languages import choices
from e5jax.synth.plan import drawn, settings, shares
from e5jax.synth.prompts import HINT
from e5jax.synth.relabel import records
from e5jax.synth.tasks import avoided, from_files


def validate(config: Synth) -> None:
    """Raises ConfigError naming field, value and fix."""
    check_types(config, "config")
    _ranges(config)
    _families(config)
    _explained("config.languages", config.languages, choices)
    if config.families.bitext.share and len(choices(config.languages).values) < 2:
        raise ConfigError(
            f"config.languages={config.languages}: bitext takes two; set config.families.bitext.share=0"
        )
    for name, texts in [("personas", config.hints.personas), ("domains", config.hints.domains)]:
        _short(f"config.hints.{name}", texts)
    _short("config.tasks.topics", config.tasks.topics)
    if (
        not config.tasks.brainstorm
        and not config.tasks.files
        and any(settings(config, f).share for f in FAMILIES if f.brainstorms)
    ):
        raise ConfigError(
            "config.tasks.brainstorm=False and config.tasks.files is empty: no tasks; set one of them"
        )
    avoided(config.tasks.avoid)
    if config.relabel is not None:
        _relabel(config.relabel)
    for _ in from_files(config.tasks.files):
        pass
    _endpoint(config)


def _ranges(config: Synth) -> None:
    checks, tasks, sampling = config.checks, config.tasks, config.sampling
    for path, value, least in [
        ("examples", config.examples, 1),
        ("checks.attempts", checks.attempts, 1),
        ("checks.length_slack", checks.length_slack, 1),
        ("checks.answers", checks.answers, 1),
        ("tasks.per_call", tasks.per_call, 1),
        ("tasks.most_a_task", tasks.most_a_task, 1),
        ("sampling.max_tokens", sampling.max_tokens, 16),
    ]:
        at_least(f"config.{path}", value, least)
    for path, value in [
        ("checks.copied", checks.copied),
        ("checks.near", checks.near),
        ("checks.answer_share", checks.answer_share),
        ("checks.language_confidence", checks.language_confidence),
        ("hints.persona_rate", config.hints.persona_rate),
        ("hints.domain_rate", config.hints.domain_rate),
        ("sampling.top_p", sampling.top_p),
    ]:
        _between(f"config.{path}", value, 0, 1)
    _between("config.sampling.temperature", sampling.temperature, 0, 2)
    if config.judge is not None:
        _between("config.judge.least", config.judge.least, 1, 5)
        _between("config.judge.temperature", config.judge.temperature, 0, 2)
    if not 0 <= config.seed < SEEDS:
        raise ConfigError(f"config.seed={config.seed}: must be at least 0 and below {SEEDS}")
    if not 0 < tasks.examples_a_task < math.inf:
        raise ConfigError(
            f"config.tasks.examples_a_task={tasks.examples_a_task}: must be above 0 and finite"
        )


def _families(config: Synth) -> None:
    for family, share in zip(FAMILIES, shares(config), strict=True):
        if not 0 <= share < math.inf:
            raise ConfigError(
                f"config.families.{family.field}.share={share}: must be at least 0 and finite"
            )
        _placeholders(config, family)
    if not sum(shares(config)):
        raise ConfigError("config.families: every share is 0; nothing to ask for")
    grounded = config.families.grounded
    if bool(grounded.share) != bool(grounded.documents):
        raise ConfigError(
            f"config.families.grounded.share={grounded.share} and documents={grounded.documents!r}: "
            "queries for documents need both, a share above 0 and a file"
        )


def _placeholders(config: Synth, family: Family) -> None:
    found = drawn(config, family)
    for part in family.parts:
        for text in found[part.length].values if part.length in found else ():
            try:
                bounds(UNITS.get(text, text))
            except ValueError as error:
                raise ConfigError(
                    f"config.families.{family.field}.{part.length}: {error}"
                ) from error


def _relabel(rules: Relabel) -> None:
    at_least("config.relabel.candidates", rules.candidates, 2)
    at_least("config.relabel.characters", rules.characters, 100)
    _between("config.relabel.temperature", rules.temperature, 0, 2)
    if not 1 <= rules.most < rules.least <= 5:
        raise ConfigError(
            f"config.relabel.least={rules.least}, config.relabel.most={rules.most}: "
            "grades from 1 to 5, a positive's above a negative's"
        )
    if next(records(rules), None) is None:
        raise ConfigError(
            f"config.relabel.files={rules.files}: no records in them; name what `e5jax mine` wrote"
        )


def _endpoint(config: Synth) -> None:
    check_endpoint(config.endpoint)
    check_budget(config.budget, config.endpoint.models)


def _explained(path: str, texts: Sequence[str], read: Callable[[Sequence[str]], object]) -> None:
    try:
        read(texts)
    except ValueError as error:
        raise ConfigError(f"{path}={texts!r}: {error}") from error


def _short(path: str, texts: Sequence[str]) -> None:
    for text in texts:
        if not text.strip() or len(text) > HINT:
            raise ConfigError(f"{path}: {text[:80]!r} is blank or longer than {HINT} characters")


def _between(path: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{path}={value}: must be between {least} and {most}")
