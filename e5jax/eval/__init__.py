"""The evaluation stage: MTEB tasks, baselines, results and the report page."""
