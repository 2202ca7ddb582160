"""The server: an HTTP front end, the encode, generate and decode stages, and the supervisor that keeps them running."""
