"""Which texts a query is scored against: a rule between what is known of a pair and what is known of a text.

Every way of scoring asks it for the block of scores that it has at hand; what is known of texts goes where they go.
A query is one pair with each of its positives: as many pairs a query as it has places for them, those it lacks weigh nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Bool, Float, Int

from e5jax.config import HardnessMode, Loss


class BatchInfo(NamedTuple):
    """What the loss is told of a batch besides its vectors."""

    temperatures: Float[Array, " q"]
    in_batch: Bool[Array, " q"]  # False: scored against its own passages only
    queries: Int[Array, " q"]  # equal texts have equal numbers
    passages: Int[
        Array, " p"
    ]  # as well, -1 in the place of a positive or hard negative that its query lacks


class Anchors(NamedTuple):
    """What is known of those that ask: queries, each with one of its positives."""

    number: Int[Array, " pairs"]  # of the query in the batch
    mine: Int[Array, "pairs m"]  # the texts of the query and of all its positives
    in_batch: Bool[Array, " pairs"]
    ceiling: Float[Array, " pairs"]  # of the scores of negatives, see `Rule.ceiling`
    harder: Float[
        Array, " pairs"
    ]  # share of its score by which a negative counts for more, see `Rule.harder`


class Candidates(NamedTuple):
    """What is known of texts that are scored: all passages, or all queries."""

    owner: Int[Array, " n"]  # number of the query that brought it
    text: Int[Array, " n"]  # -1: none is there
    partners: Int[
        Array, "n m"
    ]  # the query of a positive, the positives of a query, -1 where there is none


class MaskRule(NamedTuple):
    """What may be a negative, besides others' texts that are there: values of `config.Loss`. What is off costs nothing."""

    own: bool  # its own hard negatives are among the texts
    duplicates: bool  # what equals or belongs to a text of the pair is none
    ceiling: bool  # what scores above its ceiling is none
    harder: HardnessMode | None  # which negatives count for more
    smooth: bool  # the mean of their scores is asked for, too


def mask_rule(loss: Loss, *, own: bool) -> MaskRule:
    """The rule for passages as queries see them (`own`), or for any other direction."""
    harder = loss.hardness_mode if own and loss.hardness_strength else None
    return MaskRule(own, loss.mask_duplicates, loss.margin is not None, harder, loss.smoothing > 0)


def split(values: Array, queries: int) -> Array:
    """`[queries · n, …]` to `[queries, n, …]`, where it lies."""
    (first, *others), (count, *rest) = jax.typeof(values).sharding.spec, values.shape
    shape = (queries, count // queries, *rest)
    return jax.lax.reshape(values, shape, out_sharding=PartitionSpec(first, None, *others))


def flatten(values: Array) -> Array:
    """`[queries, n, …]` to `[queries · n, …]`, where it lies."""
    (first, _, *others), (queries, count, *rest) = jax.typeof(values).sharding.spec, values.shape
    return jax.lax.reshape(
        values, (queries * count, *rest), out_sharding=PartitionSpec(first, *others)
    )


def repeat(values: Array, times: int) -> Array:
    """Each row of `[queries, …]` so many times."""
    return flatten(jnp.repeat(values[:, None], times, axis=1))


def weights(terms: BatchInfo, positives: int) -> Float[Array, " pairs"]:
    """Of each pair in the sum over all of them; those of a query are one together."""
    there = split(terms.passages, len(terms.queries))[:, :positives] >= 0
    return flatten(there / jnp.sum(there, axis=1, keepdims=True))


def anchors_of(
    terms: BatchInfo, own: Float[Array, " pairs"], loss: Loss, positives: int
) -> Anchors:
    """What is known of the pairs of a device. `own` is the score of each, divided by its temperature."""
    number = reshard(jnp.arange(len(terms.queries)), jax.typeof(terms.queries).sharding.spec)
    exact, warmth = jax.lax.stop_gradient((own, repeat(terms.temperatures, positives)))
    margin = loss.margin or 0.0
    ceiling = exact * margin if loss.margin_kind == "ratio" else exact + margin / warmth
    found, query = split(terms.passages, len(terms.queries))[:, :positives], terms.queries[:, None]
    mine = jnp.concatenate([query, jnp.where(found < 0, query, found)], axis=1)
    number, mine, in_batch = (repeat(part, positives) for part in (number, mine, terms.in_batch))
    return Anchors(number, mine, in_batch, ceiling, loss.hardness_strength * warmth)


def candidates_of(
    terms: BatchInfo, to: PartitionSpec, positives: int
) -> tuple[Candidates, Candidates]:
    """What is known of passages and of queries, placed as said. Query i brought p / q passages, from number i · p / q on."""
    with jax.named_scope("gather"):
        queries, passages = reshard(terms.queries, to), reshard(terms.passages, to)
    number = reshard(jnp.arange(len(queries)), to)
    by_query = split(passages, len(queries))
    partner = jnp.where(jnp.arange(by_query.shape[1]) < positives, queries[:, None], -1)
    of_passages = Candidates(repeat(number, by_query.shape[1]), passages, flatten(partner)[:, None])
    return of_passages, Candidates(number, queries, by_query[:, :positives])


def negatives(asking: Anchors, asked: Candidates, rule: MaskRule) -> Bool[Array, "q n"]:
    """Others' texts, of a query with in-batch negatives; its own hard negatives; never its own positives."""
    others = asking.number[:, None] != asked.owner[None]
    found = others & asking.in_batch[:, None]
    if rule.own:
        found |= ~others & (asked.partners[:, 0] < 0)[None]
    found &= (asked.text >= 0)[None]
    if rule.duplicates:
        for mine in range(asking.mine.shape[1]):
            for text in (
                asked.text,
                *(asked.partners[:, other] for other in range(asked.partners.shape[1])),
            ):
                found &= asking.mine[:, mine, None] != text[None]
    return found


def mask_scores(
    scores: Float[Array, "q n"], asking: Anchors, asked: Candidates, rule: MaskRule
) -> Float[Array, "q n"]:
    """Scores as the softmax takes them: -inf for what is no negative, higher for what counts for more (arXiv 2503.04812, eq. 5)."""
    found = negatives(asking, asked, rule)
    if rule.ceiling:
        found &= ~(
            jax.lax.stop_gradient(scores) > asking.ceiling[:, None]
        )  # what is no number stays in the sum, and shows
    if rule.harder:
        own = asking.number[:, None] == asked.owner[None]
        chosen = {
            "all_negatives": jnp.ones_like(own),
            "hard_negatives": own,
            "in_batch_negatives": ~own,
        }[rule.harder]
        scores = scores + jnp.where(
            chosen, asking.harder[:, None] * jax.lax.stop_gradient(scores), 0
        )
    return jnp.where(found, scores, -jnp.inf)
