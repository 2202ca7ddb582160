"""Limits of a request. HTTP requests have further limits, see `server/arguments.py`."""

from vllm_cosyvoice.config import FRAMES_PER_TOKEN

SPEEDS = 0.25, 4.0  # slowest and fastest
MOST_PROMPT_SECONDS = 30.0  # longest recording of a voice

MAX_FRAMES = 15_000  # mel frames of prompt and speech, 300 s: the length of the flow's noise table
MAX_TOKENS = MAX_FRAMES // FRAMES_PER_TOKEN  # the same limit in speech tokens
MOST_SPEECH = 6750  # speech tokens of a segment, 270 s; with a prompt of 30 s, they reach `MAX_TOKENS`
MAX_SPEECH_PER_TEXT = 20  # speech tokens per text token
MOST_TEXT = MOST_SPEECH // MAX_SPEECH_PER_TEXT  # text tokens of a segment; a longer text is split

LONGEST_PAUSE = 10.0  # seconds of one pause in a text
MOST_SILENCE = 60.0  # seconds of all pauses in a text
