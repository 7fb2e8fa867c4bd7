"""The training stage: one loop."""
