"""What operators see of the server: metrics, one log line per request, and how well clients were served."""
