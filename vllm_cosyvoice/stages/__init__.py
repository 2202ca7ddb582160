"""The stages of the engine. Each handles one message at a time without blocking; long work runs in threads."""
