"""LightTTS's routes and messages: its clients need not change."""
