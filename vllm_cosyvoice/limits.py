"""How much may be asked for. What comes over HTTP is limited further, see `server/arguments.py`."""

from vllm_cosyvoice.config import FRAMES_PER_TOKEN

SPEEDS = 0.25, 4.0  # slowest and fastest
MOST_PROMPT_SECONDS = 30.0  # of a recording that a voice is made from

MAX_FRAMES = 15_000  # mel frames of prompt and speech, 300 s: the length of the flow's noise table
MAX_TOKENS = MAX_FRAMES // FRAMES_PER_TOKEN  # speech tokens of the same
MOST_SPEECH = 6750  # speech tokens of a segment, 270 s: with a prompt of 30 s all that a decoder takes
MAX_SPEECH_PER_TEXT = 20  # speech tokens that a text token may become
MOST_TEXT = MOST_SPEECH // MAX_SPEECH_PER_TEXT  # text tokens of a segment: a text of more gets several

LONGEST_PAUSE = 10.0  # seconds of silence that a text asks for in one place
MOST_SILENCE = 60.0  # seconds, of all pauses of a text
