"""OpenAI's speech API, with more to it: speech, batches of it, and voices."""
