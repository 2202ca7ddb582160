"""The stages between the http workers and the audio: thin loops around the engine."""
