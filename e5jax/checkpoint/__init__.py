"""Checkpoints: saving and restoring, checksums, which ones are kept, whose they are."""
