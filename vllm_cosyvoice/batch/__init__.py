"""The offline batch job: reads a file of lines and writes a directory of audio files with a manifest."""
