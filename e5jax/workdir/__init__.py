"""The run directory, and how every command writes its outputs."""
