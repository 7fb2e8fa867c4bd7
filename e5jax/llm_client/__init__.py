"""Client of OpenAI-compatible endpoints: retries, rate limits, budgets and a journal of every reply."""
