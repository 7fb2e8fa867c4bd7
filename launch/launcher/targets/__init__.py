"""One module per target: start a run there, show its status and logs, stop it."""
