"""Preparing training files: readers of public formats, public sets, cleaning, docstring pairs."""
