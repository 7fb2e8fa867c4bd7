"""Hard negatives: a model embeds queries and a corpus, exact search ranks, rules choose."""
