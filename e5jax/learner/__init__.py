"""The training step as a library: loss, optimiser, state, step."""
