"""Processes of one run: coordination, signals, heartbeat, watchdog."""
