"""The OpenAI speech API with extensions: speech, batches and voices."""
