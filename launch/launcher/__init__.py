"""The launcher: starts and supervises runs here or elsewhere, with the standard library only."""
