"""Speech tokens to audio: what is decoded when, and the decoder that does it."""
