"""The server: an http front, an encode, a generate and a decode stage, and the supervisor that keeps them running."""
