"""An endpoint for trying things out and for tests: speaks OpenAI's protocol, knows nothing, and fails on demand."""
