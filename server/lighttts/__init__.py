"""The routes and messages of LightTTS, for its clients to use unchanged."""
