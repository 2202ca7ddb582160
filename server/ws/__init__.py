"""`WS /v1/audio/speech/stream`: text comes in as it is written, speech goes out as it is made."""
