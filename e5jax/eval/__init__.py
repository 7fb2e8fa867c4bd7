"""Evaluation with MTEB: presets, backends, baselines, comparisons and reports."""
