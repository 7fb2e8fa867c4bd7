"""Which passages a query is scored against: a rule between what is known of a query and what is known of a passage.

Every way of scoring asks it for the block of scores that it has at hand; what is known of passages goes where they go.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jaxtyping import Array, Bool, Float, Int


class Terms(NamedTuple):
    """What the loss is told of a batch besides its vectors."""

    temperatures: Float[Array, " q"]
    in_batch: Bool[Array, " q"]  # False: scored against its own passages only
    there: Bool[Array, " p"]  # False: the place of a hard negative that its query lacks


class Asked(NamedTuple):
    """What is known of queries."""

    positive: Int[Array, " q"]  # its number among the passages of the batch
    in_batch: Bool[Array, " q"]


class Offered(NamedTuple):
    """What is known of passages."""

    number: Int[Array, " p"]  # in the batch
    positive: Int[Array, " p"]  # number of the positive of the query that brought it
    there: Bool[Array, " p"]


def sides(terms: Terms, passages: PartitionSpec) -> tuple[Asked, Offered]:
    """What is known of queries, and of passages, placed as said. Query i brought p / q passages, from number i · p / q on."""
    each = terms.there.shape[0] // terms.in_batch.shape[0]
    number = jnp.arange(terms.there.shape[0])
    with jax.named_scope("gather"):
        there = reshard(terms.there, passages)
    asked = Asked(reshard(number[::each], jax.typeof(terms.in_batch).sharding.spec), terms.in_batch)
    return asked, Offered(reshard(number, passages), reshard(number - number % each, passages), there)


def candidates(asked: Asked, offered: Offered) -> Bool[Array, "q p"]:
    """A query's own passages and, with in-batch negatives, all others: those that are there."""
    own = asked.positive[:, None] == offered.positive[None]
    return offered.there[None] & (asked.in_batch[:, None] | own)
