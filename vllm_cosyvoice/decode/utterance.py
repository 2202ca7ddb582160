"""One utterance on its way from speech tokens to audio: all that is kept of it between two decode calls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE
from vllm_cosyvoice.decode.hops import Cut, next_cut
from vllm_cosyvoice.decode.playback import Playback
from vllm_cosyvoice.flow import FlowRow
from vllm_cosyvoice.limits import MAX_TOKENS, SPEEDS
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS
from vllm_cosyvoice.vocoder import VocoderStream
from vllm_cosyvoice.vocoder.stream import HOLD_BACK

SHORTEST_TRIMMED_PROMPT = 50  # tokens: a prompt that would get shorter is not trimmed, the first hop is longer instead


@dataclass(frozen=True, eq=False)
class FlowPrompt:
    """A voice on the decoder's device."""

    tokens: list[int]
    mel: Tensor  # [2 · tokens, 80] float32
    speaker: Tensor  # [80], see `Flow.speaker`

    def without_head(self, tokens: int) -> "FlowPrompt":
        """The same voice, `tokens` later."""
        return FlowPrompt(self.tokens[tokens:], self.mel[FRAMES_PER_TOKEN * tokens :], self.speaker)


class Utterance:
    """Waits for its voice, which `SpeechDecoder.begin` brings; then it is decoded, hop by hop, until it is `done`.

    `push` and `finish` may be called before the voice is there, and while another thread decodes.

    Args:
        streaming: decode in hops with the streaming mask; otherwise in one go, with full attention, once finished.
        speed: 2 is twice as fast.
        seed: of the vocoder's noise.
        playback: of its audio, if the request has other utterances.

    Raises:
        ValueError: the speed is out of range.
    """

    prompt: FlowPrompt  # once it has its voice
    vocoder: VocoderStream  # likewise

    def __init__(
        self, *, streaming: bool = True, speed: float = 1.0, seed: int = 0, playback: Playback | None = None
    ) -> None:
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise ValueError(f"speed is {speed}; choose one between {SPEEDS[0]} and {SPEEDS[1]}")
        self.streaming, self.speed, self.seed = streaming, speed, seed
        self.playback = playback or Playback()
        self.tokens: list[int] = []
        self.finished = False  # no more tokens will come
        self.has_voice = False
        self.reachable: Cut | None = None  # how far a decode could go when the loop last looked
        self.ready_since: float | None = None  # when the first decode could be made
        self.decoded = 0  # tokens whose mel the vocoder has
        self.hops = 0  # decodes so far
        self.done = False  # all audio is out
        self._first_hop = CHUNK_TOKENS
        self._first_hop_waits = False  # the caller does: the first hop stays short, however many tokens there are

    def push(self, tokens: Sequence[int]) -> None:
        """More speech tokens.

        Raises:
            ValueError: the utterance is finished or gets too long, or these are no speech tokens.
        """
        if self.finished:
            raise ValueError("the utterance is finished; start another one for more speech tokens")
        wrong = next((token for token in tokens if not 0 <= token < SPEECH_TOKENS), None)
        if wrong is not None:
            raise ValueError(
                f"{wrong} is no speech token, which are 0 to {SPEECH_TOKENS - 1}; leave out control tokens"
            )
        _check_length((len(self.prompt.tokens) if self.has_voice else 0) + len(self.tokens) + len(tokens))
        self.tokens.extend(tokens)
        self.playback.expect(len(tokens) / TOKEN_RATE / self.speed)

    def finish(self) -> None:
        """No more tokens will come."""
        self.finished = True

    def begin(self, prompt: FlowPrompt, vocoder: VocoderStream, first_hop: int | None) -> None:
        """The voice is here; see `SpeechDecoder.begin`."""
        self._first_hop_waits = first_hop is not None
        first_hop = CHUNK_TOKENS if first_hop is None else first_hop
        if FRAMES_PER_TOKEN * first_hop <= HOLD_BACK:
            raise ValueError(
                f"first_hop is {first_hop} tokens, whose audio the vocoder holds back; choose at least"
                f" {HOLD_BACK // FRAMES_PER_TOKEN + 1}, usually {CHUNK_TOKENS}"
            )
        first_hop = math.ceil(first_hop * self.speed)
        excess = (len(prompt.tokens) + first_hop) % CHUNK_TOKENS
        if self.streaming and len(prompt.tokens) - excess >= SHORTEST_TRIMMED_PROMPT:
            prompt = prompt.without_head(excess)
        _check_length(len(prompt.tokens) + len(self.tokens))
        chunks = -(-(len(prompt.tokens) + first_hop) // CHUNK_TOKENS)
        self._first_hop = chunks * CHUNK_TOKENS - len(prompt.tokens)
        self.prompt, self.vocoder, self.has_voice = prompt, vocoder, True

    def next_cut(self, *, to_the_end: bool = True) -> Cut | None:
        """How far a decode would go now, None if it would not get on.

        An utterance that is not streamed is decoded once, when it is finished. For the hops of the others see `hops`;
        `to_the_end`: what is finished is decoded to its end.
        """
        if self.done or not self.has_voice:
            return None
        finished = self.finished  # read first: then all tokens that were pushed before it are counted
        arrived = len(self.tokens)
        if not self.streaming:
            return Cut(arrived, last=True) if finished else None
        return next_cut(
            arrived,
            self.decoded,
            self._first_hop,
            finished=finished and to_the_end,
            waited_for=self._first_hop_waits,
        )

    def frames(self, cut: Cut) -> int:
        """Frames that the flow computes to go as far as `cut`."""
        return FRAMES_PER_TOKEN * (len(self.prompt.tokens) + cut.tokens)

    def flow_row(self, cut: Cut) -> FlowRow:
        """What the flow needs to go as far as `cut`."""
        look_ahead = 0 if cut.last else LOOKAHEAD_TOKENS
        tokens = self.prompt.tokens + self.tokens[: cut.tokens + look_ahead]
        return FlowRow(tokens, look_ahead, self.prompt.mel, self.prompt.speaker, self.streaming)

    def advance(self, cut: Cut, mel: Tensor) -> None:
        """Hand the vocoder what is new in `mel`, the mel of all tokens up to `cut`."""
        self.vocoder.push(mel[FRAMES_PER_TOKEN * self.decoded :])
        self.decoded = cut.tokens


def _check_length(tokens: int) -> None:
    if tokens > MAX_TOKENS:
        raise ValueError(f"prompt and speech exceed {MAX_TOKENS} speech tokens (300 s); split the text")
