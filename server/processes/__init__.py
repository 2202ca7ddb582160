"""The engine's stages as processes: how they are started, watched, restarted and reached."""
