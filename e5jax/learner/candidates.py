"""Which texts a query is scored against: a rule between what is known of a pair and what is known of a text.

Every way of scoring asks it for the block of scores that it has at hand; what is known of texts goes where they go.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Bool, Float, Int

from e5jax.config import Harder, Loss


class Terms(NamedTuple):
    """What the loss is told of a batch besides its vectors."""

    temperatures: Float[Array, " q"]
    in_batch: Bool[Array, " q"]  # False: scored against its own passages only
    queries: Int[Array, " q"]  # equal texts have equal numbers
    passages: Int[Array, " p"]  # as well, -1 in the place of a hard negative that its query lacks


class Pairs(NamedTuple):
    """What is known of those that ask: queries with their positives."""

    number: Int[Array, " q"]  # in the batch
    query: Int[Array, " q"]  # the text
    positive: Int[Array, " q"]  # the text
    in_batch: Bool[Array, " q"]
    ceiling: Float[Array, " q"]  # of the scores of negatives, see `Rule.ceiling`
    harder: Float[Array, " q"]  # share of its score by which a negative counts for more, see `Rule.harder`


class Texts(NamedTuple):
    """What is known of texts that are scored: all passages, or all queries."""

    owner: Int[Array, " n"]  # number of the pair that brought it
    text: Int[Array, " n"]  # -1: none is there
    partner: Int[Array, " n"]  # the other text of a query or positive, -1 of a hard negative


class Rule(NamedTuple):
    """What may be a negative, besides others' texts that are there: values of `config.Loss`. What is off costs nothing."""

    own: bool  # its own hard negatives are among the texts
    duplicates: bool  # what equals or belongs to a text of the pair is none
    ceiling: bool  # what scores above its ceiling is none
    harder: Harder | None  # which negatives count for more
    smooth: bool  # the mean of their scores is asked for, too


def rule_of(loss: Loss, *, own: bool) -> Rule:
    """The rule for passages as queries see them (`own`), or for any other direction."""
    harder = loss.harder if own and loss.hardness else None
    return Rule(own, loss.mask_duplicates, loss.margin is not None, harder, loss.smoothing > 0)


def pairs(terms: Terms, own: Float[Array, " q"], loss: Loss) -> Pairs:
    """What is known of the queries of a device. `own` is the score of each pair, divided by its temperature."""
    each = terms.passages.shape[0] // terms.queries.shape[0]
    number, spread = jnp.arange(terms.queries.shape[0]), jax.typeof(terms.queries).sharding.spec
    exact, warmth = jax.lax.stop_gradient((own, terms.temperatures))
    margin = loss.margin or 0.0
    ceiling = exact * margin if loss.margin_kind == "ratio" else exact + margin / warmth
    positive = jax.lax.reshape(terms.passages, (terms.queries.shape[0], each), out_sharding=PartitionSpec(*spread, None))[:, 0]
    return Pairs(reshard(number, spread), terms.queries, positive, terms.in_batch, ceiling, loss.hardness * warmth)


def texts(terms: Terms, to: PartitionSpec) -> tuple[Texts, Texts]:
    """What is known of passages and of queries, placed as said. Query i brought p / q passages, from number i · p / q on."""
    count, each = terms.queries.shape[0], terms.passages.shape[0] // terms.queries.shape[0]
    number = jnp.arange(terms.passages.shape[0])
    with jax.named_scope("gather"):
        queries, passages = reshard(terms.queries, to), reshard(terms.passages, to)
    if each == 1:
        return Texts(reshard(number, to), passages, queries), Texts(reshard(number, to), queries, passages)
    whole = PartitionSpec(*to, None)
    by_query = jax.lax.reshape(passages, (count, each), out_sharding=whole)
    none = jnp.full_like(by_query[:, 1:], -1)
    partner = jnp.concatenate([jax.lax.reshape(queries, (count, 1), out_sharding=whole), none], axis=1)
    partner = jax.lax.reshape(partner, (count * each,), out_sharding=to)
    owners = reshard(number - number % each, to) // each
    return Texts(owners, passages, partner), Texts(reshard(jnp.arange(count), to), queries, by_query[:, 0])


def negatives(asking: Pairs, asked: Texts, rule: Rule) -> Bool[Array, "q n"]:
    """Others' texts, of a query with in-batch negatives; its own hard negatives; never its own positive."""
    others = asking.number[:, None] != asked.owner[None]
    found = others & asking.in_batch[:, None]
    if rule.own:
        found |= ~others & (asked.partner < 0)[None]
    found &= (asked.text >= 0)[None]
    if rule.duplicates:
        for mine in (asking.query, asking.positive):
            for text in (asked.text, asked.partner):
                found &= mine[:, None] != text[None]
    return found


def judged(scores: Float[Array, "q n"], asking: Pairs, asked: Texts, rule: Rule) -> Float[Array, "q n"]:
    """Scores as the softmax takes them: -inf for what is no negative, higher for what counts for more (arXiv 2503.04812, eq. 5)."""
    found = negatives(asking, asked, rule)
    if rule.ceiling:
        found &= ~(jax.lax.stop_gradient(scores) > asking.ceiling[:, None])  # what is no number stays in the sum, and shows
    if rule.harder:
        own = asking.number[:, None] == asked.owner[None]
        chosen = {"all": jnp.ones_like(own), "hard": own, "in_batch": ~own}[rule.harder]
        scores = scores + jnp.where(chosen, asking.harder[:, None] * jax.lax.stop_gradient(scores), 0)
    return jnp.where(found, scores, -jnp.inf)
