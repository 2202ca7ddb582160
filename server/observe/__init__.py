"""Observability: metrics, one log line per request, and measurements of how audio reached clients."""
