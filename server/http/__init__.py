"""The http workers: the OpenAI speech API in front of the stages."""
