"""From texts to vectors and neighbours: the embedder, encoding files, search."""
