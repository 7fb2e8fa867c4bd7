"""Synthetic training examples from a language model."""
