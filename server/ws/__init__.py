"""`WS /v1/audio/speech/stream`: receives text as it is written, sends speech as it is generated."""
