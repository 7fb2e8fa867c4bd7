"""The decoder, its weights on disk and in memory."""
