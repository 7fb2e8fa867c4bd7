"""Files of texts into files of vectors, of any size: what is done is kept, and memory does not grow with the corpus."""
