"""A demonstration endpoint: an OpenAI-compatible server with generated replies and faults."""
