"""A module a target: how a run is started there, and how it is asked, read and stopped."""
