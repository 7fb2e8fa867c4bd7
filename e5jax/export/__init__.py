"""The export stage: from a checkpoint to a Hugging Face folder."""
