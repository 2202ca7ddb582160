"""The state of one utterance between decode calls, from its first speech token to its last audio."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, TOKEN_RATE
from vllm_cosyvoice.decode.hops import Cut, next_cut, shared_first_hop
from vllm_cosyvoice.decode.playback import Playback
from vllm_cosyvoice.flow import FlowRow
from vllm_cosyvoice.flow.cache import FlowCache, StreamMemory
from vllm_cosyvoice.limits import MAX_TOKENS, SPEEDS
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS
from vllm_cosyvoice.vocoder import VocoderStream

SHORTEST_TRIMMED_PROMPT = 50  # tokens; a prompt is not trimmed below this, the first hop is longer instead


@dataclass(frozen=True, eq=False)
class FlowPrompt:
    """A voice on the decoder's device."""

    key: str  # of the voice
    tokens: list[int]
    mel: Tensor  # [2 · tokens, 80] float32
    speaker: Tensor  # [80], see `Flow.speaker`

    def without_head(self, tokens: int) -> "FlowPrompt":
        """The same voice without its first `tokens`."""
        return replace(self, tokens=self.tokens[tokens:], mel=self.mel[FRAMES_PER_TOKEN * tokens :])


class Utterance:
    """An utterance. `SpeechDecoder.begin` gives it a voice; then it is decoded hop by hop until it is `done`.

    `push` and `finish` may be called before it has a voice, and while another thread decodes.

    Args:
        streaming: decode in hops; otherwise in one go, once finished.
        speed: 2 is twice as fast.
        seed: seed of the vocoder's noise.
        playback: playback of its audio, if the request has other utterances.

    Raises:
        ValueError: the speed is out of range.
    """

    prompt: FlowPrompt  # set if `has_voice`
    vocoder: VocoderStream  # set if `has_voice`
    chunk_mask: bool  # set if `has_voice`: whether attention is in chunks; always if it is streamed
    memory: StreamMemory | None = None  # what the flow remembers of it

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
        self.pushed_at: float | None = None  # when the loop got its last tokens
        self.reachable: Cut | None = None  # how far a decode could go when the loop last looked
        self.ready_since: float | None = None  # when the first decode became possible
        self.decoded = 0  # tokens whose mel the vocoder has
        self.hops = 0  # decodes so far
        self.done = False  # all audio has been returned
        self._first_hop = CHUNK_TOKENS
        self._first_hop_waits = False  # whether the caller waits for it, so that it stays short

    def push(self, tokens: Sequence[int]) -> None:
        """Add speech tokens.

        Raises:
            ValueError: the utterance is finished or becomes too long, or a token is not a speech token.
        """
        if self.finished:
            raise ValueError("the utterance is finished; start another one for more speech tokens")
        invalid = next((token for token in tokens if not 0 <= token < SPEECH_TOKENS), None)
        if invalid is not None:
            raise ValueError(f"{invalid} is not a speech token (0 to {SPEECH_TOKENS - 1}); leave out control tokens")
        _check_length((len(self.prompt.tokens) if self.has_voice else 0) + len(self.tokens) + len(tokens))
        self.tokens.extend(tokens)
        self.playback.expect(len(tokens) / TOKEN_RATE / self.speed)

    def finish(self) -> None:
        """Mark the end of the tokens."""
        self.finished = True

    def begin(
        self,
        prompt: FlowPrompt,
        vocoder: VocoderStream,
        first_hop: int | None,
        cache: FlowCache | None,
        *,
        chunk_mask: bool,
    ) -> None:
        """Set the voice; see `SpeechDecoder.begin`."""
        self._first_hop_waits = first_hop is not None
        first_hop = CHUNK_TOKENS if first_hop is None else first_hop
        if FRAMES_PER_TOKEN * first_hop <= vocoder.hold_back:
            raise ValueError(
                f"first_hop is {first_hop} tokens, whose audio the vocoder holds back; choose at least"
                f" {vocoder.hold_back // FRAMES_PER_TOKEN + 1}, usually {CHUNK_TOKENS}"
            )
        first_hop = math.ceil(first_hop * self.speed)
        if self.streaming and cache:
            first_hop = shared_first_hop(first_hop)
        excess = (len(prompt.tokens) + first_hop) % CHUNK_TOKENS
        if self.streaming and len(prompt.tokens) - excess >= SHORTEST_TRIMMED_PROMPT:
            prompt = prompt.without_head(excess)
        _check_length(len(prompt.tokens) + len(self.tokens))
        self._first_hop = first_hop + -(len(prompt.tokens) + first_hop) % CHUNK_TOKENS
        if chunk_mask and cache:
            self.memory = StreamMemory(cache, (prompt.key, len(prompt.tokens)), len(prompt.tokens))
        self.prompt, self.vocoder, self.chunk_mask, self.has_voice = prompt, vocoder, chunk_mask, True

    def next_cut(self, *, to_the_end: bool = True) -> Cut | None:
        """How far a decode would go now; None if it would make no progress.

        An utterance that is not streamed is decoded once, when it is finished. For the others, see `hops`; with
        `to_the_end`, a finished one is decoded to its end.
        """
        if self.done or not self.has_voice:
            return None
        finished = self.finished  # read this first, so that no token pushed before it is missed
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
        """Number of frames that the flow computes for a decode up to `cut`: those that it does not remember."""
        remembered = self.memory.frames if self.memory else 0
        return FRAMES_PER_TOKEN * (len(self.prompt.tokens) + cut.tokens) - remembered

    @property
    def prompt_is_new(self) -> bool:
        """Whether it has a prompt that the flow does not remember, but could."""
        return self.memory is not None and self.memory.lacks_prompt

    def flow_row(self, cut: Cut) -> FlowRow:
        """The flow's input for a decode up to `cut`."""
        look_ahead = 0 if cut.last else LOOKAHEAD_TOKENS
        tokens = self.prompt.tokens + self.tokens[: cut.tokens + look_ahead]
        return FlowRow(tokens, look_ahead, self.prompt.mel, self.prompt.speaker, self.chunk_mask, self.memory)

    def advance(self, cut: Cut, mel: Tensor) -> None:
        """Pass the new part of `mel`, the mel up to `cut` from where it is remembered, to the vocoder."""
        self.vocoder.push(mel[len(mel) - FRAMES_PER_TOKEN * (cut.tokens - self.decoded) :])
        self.decoded = cut.tokens


def _check_length(tokens: int) -> None:
    if tokens > MAX_TOKENS:
        raise ValueError(f"prompt and speech exceed {MAX_TOKENS} speech tokens (300 s); split the text")
