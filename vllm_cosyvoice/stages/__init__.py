"""The stages of the engine. Each is told one message at a time, and nothing in it waits; long work runs in threads."""
