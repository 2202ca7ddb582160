"""The offline batch job: a file of lines in, a directory of audio files and a manifest out."""
