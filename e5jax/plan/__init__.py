"""The planning stage: what a run would need on a machine that is not here."""
