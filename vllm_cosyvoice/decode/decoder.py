"""Speech tokens to audio, for many streams at once: the flow, then the vocoder.

A streamed utterance is decoded in hops. Each hop computes the mel of prompt and tokens so far afresh; because attention
goes by chunks of 25 tokens, counted from the start of the prompt and kept to the end, a hop that ends with a chunk
gives the frames that any other hops would have given. So hops may be as large as there are tokens.
"""

import ctypes
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, LOOKAHEAD_TOKENS, MEL_BINS, TOKEN_RATE
from vllm_cosyvoice.decode.hops import Cut, next_cut
from vllm_cosyvoice.flow import FlowRow
from vllm_cosyvoice.flow.backend import open_flow
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.limits import MAX_TOKENS, SPEEDS
from vllm_cosyvoice.vocabulary import SPEECH_TOKENS
from vllm_cosyvoice.vocoder import AnyVocoder, Vocoder, VocoderStream, Window, speak
from vllm_cosyvoice.vocoder.stream import HOLD_BACK
from vllm_cosyvoice.voice import Voice

if TYPE_CHECKING:
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow
    from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

log = logging.getLogger(__name__)

SHORTEST_TRIMMED_PROMPT = 50  # tokens: a prompt that would get shorter is not trimmed, the first hop is longer instead
DATA_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
LOUDEST = 32_767  # of int16
LIBC = ctypes.CDLL(None)


@dataclass(frozen=True, eq=False)
class FlowPrompt:
    """A voice on the decoder's device."""

    tokens: list[int]
    mel: Tensor  # [2 · tokens, 80] float32
    speaker: Tensor  # [80], see `Flow.speaker`

    def without_head(self, tokens: int) -> "FlowPrompt":
        """The same voice, `tokens` later."""
        return FlowPrompt(self.tokens[tokens:], self.mel[FRAMES_PER_TOKEN * tokens :], self.speaker)


class DecodeStream:
    """One utterance on its way from speech tokens to audio. Made by `SpeechDecoder.open`.

    `push` and `finish` may be called while another thread decodes.
    """

    def __init__(
        self, prompt: FlowPrompt, vocoder: VocoderStream, *, streaming: bool, first_hop: int, waited_for: bool
    ) -> None:
        excess = (len(prompt.tokens) + first_hop) % CHUNK_TOKENS
        if streaming and len(prompt.tokens) - excess >= SHORTEST_TRIMMED_PROMPT:
            prompt = prompt.without_head(excess)
        chunks = -(-(len(prompt.tokens) + first_hop) // CHUNK_TOKENS)
        self.hops = 0  # decodes that got on
        self.done = False  # all audio is out
        self.streaming = streaming
        self.prompt = prompt
        self.vocoder = vocoder
        self._first_hop = chunks * CHUNK_TOKENS - len(prompt.tokens)
        self._waited_for = waited_for
        self._tokens: list[int] = []
        self._finished = False
        self._decoded = 0  # tokens whose mel the vocoder has

    def push(self, tokens: Sequence[int]) -> None:
        """More speech tokens.

        Raises:
            ValueError: the stream is finished, the utterance gets too long, or these are no speech tokens.
        """
        if self._finished:
            raise ValueError("the stream is finished; open another one for more speech tokens")
        wrong = next((token for token in tokens if not 0 <= token < SPEECH_TOKENS), None)
        if wrong is not None:
            raise ValueError(
                f"{wrong} is no speech token, which are 0 to {SPEECH_TOKENS - 1}; leave out control tokens"
            )
        if len(self.prompt.tokens) + len(self._tokens) + len(tokens) > MAX_TOKENS:
            raise ValueError(f"prompt and speech exceed {MAX_TOKENS} speech tokens (300 s); split the text")
        self._tokens.extend(tokens)

    def finish(self) -> None:
        """No more tokens will come."""
        self._finished = True

    @property
    def ready(self) -> bool:
        """Whether a decode would get on."""
        return self.next_cut() is not None

    def next_cut(self) -> Cut | None:
        """How far a decode would go now, see `hops`; one that is not streamed goes to the end, once it is finished."""
        if self.done:
            return None
        finished = self._finished  # asked first: what was pushed before it is there now
        arrived = len(self._tokens)
        if self.streaming:
            return next_cut(arrived, self._decoded, self._first_hop, finished=finished, waited_for=self._waited_for)
        return Cut(arrived, last=True) if finished else None

    def frames(self, cut: Cut) -> int:
        """Frames that the flow computes to go as far as `cut`."""
        return FRAMES_PER_TOKEN * (len(self.prompt.tokens) + cut.tokens)

    def seconds(self, tokens: int) -> float:
        """Length of the audio of so many tokens."""
        return tokens / TOKEN_RATE / self.vocoder.speed

    def flow_row(self, cut: Cut) -> FlowRow:
        """What the flow needs to go as far as `cut`."""
        look_ahead = 0 if cut.last else LOOKAHEAD_TOKENS
        tokens = self.prompt.tokens + self._tokens[: cut.tokens + look_ahead]
        return FlowRow(tokens, look_ahead, self.prompt.mel, self.prompt.speaker, self.streaming)

    def advance(self, cut: Cut, mel: Tensor) -> None:
        """Hand the vocoder what is new in `mel`, the mel of all tokens up to `cut`."""
        self.vocoder.push(mel[FRAMES_PER_TOKEN * self._decoded :])
        self._decoded = cut.tokens


class SpeechDecoder:
    """The flow and the vocoder of one model, on one device.

    Args:
        device: "auto" is the GPU if there is one.
        data_type: "float16", "bfloat16" or "float32", of the flow; "auto" is bfloat16 on a GPU and float32 on a CPU.
            The vocoder computes in float32, on a GPU with convolutions in float16.
        load_trt: let TensorRT compute the flow, if it is installed.

    On a GPU, all kernels are compiled and a few sizes of call captured: `capture_next` captures the others.

    Raises:
        ValueError: there is no such data type, or the weights don't fit the configuration.
        UnsupportedGpuError: the kernels don't run on this GPU.
    """

    def __init__(
        self,
        model: ModelDirectory,
        device: str | torch.device = "auto",
        data_type: str = "auto",
        *,
        load_trt: bool = False,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        on_gpu = self.device.type == "cuda"
        if data_type == "auto":
            data_type = "bfloat16" if on_gpu else "float32"
        if data_type not in DATA_TYPES:
            raise ValueError(f"data_type is {data_type!r}; choose auto, {', '.join(DATA_TYPES)}")
        gpu = Gpu.of(self.device) if on_gpu else None
        self._flow = open_flow(model, self.device, DATA_TYPES[data_type], load_trt=load_trt)
        vocoder = Vocoder.from_state(model.config.vocoder, model.vocoder_state(), self.device)
        self._vocoder: AnyVocoder = vocoder
        self._packed_flow: PackedFlow | None = None
        if gpu:
            self._vocoder = self._start_on(gpu, vocoder)
        self._uploads = torch.cuda.Stream(self.device) if on_gpu else None  # type: ignore[no-untyped-call]
        # Tokens; None: by load. On a CPU calls are so long that it would always be a chunk; and if it always is, equal
        # seeds give equal audio.
        self.usual_first_hop = None if on_gpu else CHUNK_TOKENS
        self.usual_rows = 16 if on_gpu else 1  # streams worth one call: a CPU is as fast with one after the other

    def _start_on(self, gpu: Gpu, vocoder: Vocoder) -> "PackedVocoder":
        """Compile all kernels and capture what calls need first; returns what computes `vocoder`."""
        from vllm_cosyvoice.flow.cuda.flow import PackedFlow  # these need Triton
        from vllm_cosyvoice.gpu.kernel_launch import compiling
        from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

        packed_vocoder = PackedVocoder(vocoder, gpu)
        networks: list[PackedFlow | PackedVocoder] = [packed_vocoder]
        if isinstance(self._flow, PackedFlow):
            self._packed_flow = self._flow
            networks.append(self._flow)
        with compiling():
            for network in networks:
                network.rehearse()
        for network in networks:
            network.capture()
        return packed_vocoder

    def prompt(self, voice: Voice) -> FlowPrompt:
        """`voice` on the device: make it once for each voice. May run beside `decode`, in another thread.

        Raises:
            ValueError: the voice's mel does not have two frames a token.
        """
        if voice.mel.shape != (FRAMES_PER_TOKEN * len(voice.speech_tokens), MEL_BINS):
            raise ValueError(
                f"a voice of {len(voice.speech_tokens)} speech tokens takes {FRAMES_PER_TOKEN} mel frames a token,"
                f" not a mel of shape {voice.mel.shape}; encode the recording again"
            )
        with torch.cuda.stream(self._uploads):  # so that neither waits for the other
            prompt = FlowPrompt(
                tokens=voice.speech_tokens.tolist(),
                mel=torch.from_numpy(voice.mel).to(self.device),
                speaker=self._flow.speaker(torch.from_numpy(voice.embedding).to(self.device)),
            )
        if self._uploads:
            self._uploads.synchronize()
        return prompt

    def open(
        self,
        prompt: FlowPrompt,
        *,
        streaming: bool = True,
        speed: float = 1.0,
        first_hop: int | None = CHUNK_TOKENS,
        seed: int = 0,
    ) -> DecodeStream:
        """Begin an utterance.

        Args:
            streaming: decode in hops with the streaming mask; otherwise in one go, with full attention, once finished.
            speed: 2 is twice as fast.
            first_hop: tokens after which the first audio comes, at speed 1; at others what lasts as long. The cut has
                to fall on a chunk's end, so the prompt's head is trimmed by up to 24 tokens; if it is too short for
                that, the first hop is longer. None: nobody waits for the first audio, as an earlier segment of the
                text is still to be heard, so there is no need for an early hop.
            seed: of the vocoder's noise.
        """
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise ValueError(f"speed is {speed}; choose one between {SPEEDS[0]} and {SPEEDS[1]}")
        waited_for, first_hop = first_hop is not None, CHUNK_TOKENS if first_hop is None else first_hop
        if FRAMES_PER_TOKEN * first_hop <= HOLD_BACK:
            raise ValueError(
                f"first_hop is {first_hop} tokens, whose audio the vocoder holds back; choose at least"
                f" {HOLD_BACK // FRAMES_PER_TOKEN + 1}, usually {CHUNK_TOKENS}"
            )
        return DecodeStream(
            prompt,
            VocoderStream(self._vocoder, speed, seed),
            streaming=streaming,
            first_hop=math.ceil(first_hop * speed),
            waited_for=waited_for,
        )

    @torch.inference_mode()
    def decode(self, streams: Sequence[DecodeStream]) -> list[np.ndarray]:
        """The next piece of audio of each stream, int16 mono at 24 kHz; empty for a stream that is not ready.

        Streams of similar length share one flow solve and one vocoder call.
        """
        cuts = {stream: cut for stream in streams if (cut := stream.next_cut())}
        self._extend_mel({stream: cut for stream, cut in cuts.items() if cut.tokens})
        pieces = self._speak({stream: stream.vocoder.window(last=cut.last) for stream, cut in cuts.items()})
        for stream, cut in cuts.items():
            stream.hops += 1
            stream.done = cut.last
        return [pieces.get(stream, np.empty(0, np.int16)) for stream in streams]

    def capture_next(self) -> bool:
        """Capture the flow's calls of one more size, if one is left; whether there is another.

        It takes some tenths of a second in which nothing is decoded, and must be called by the thread that decodes. A
        call that waits for its size is computed as one of the next larger size, up to twice as large.
        """
        try:
            return self._packed_flow is not None and self._packed_flow.capture_next()
        except torch.OutOfMemoryError:
            log.warning("There is no GPU memory to capture further sizes: calls are computed as larger ones.")
            self._packed_flow = None
            return False

    def give_back_memory(self) -> None:
        """Return what tensors have freed to the system, in some milliseconds: for when there is nothing to decode.

        On a CPU, glibc keeps it, and a decoder of many lengths would grow by hundreds of megabytes.
        """
        if self.device.type == "cpu" and hasattr(LIBC, "malloc_trim"):
            LIBC.malloc_trim(0)

    def _extend_mel(self, cuts: dict[DecodeStream, Cut]) -> None:
        streams, rows = list(cuts), [stream.flow_row(cut) for stream, cut in cuts.items()]
        for group in self._flow.groups([FRAMES_PER_TOKEN * row.spoken for row in rows]):
            for index, mel in zip(group, self._flow([rows[index] for index in group]), strict=True):
                streams[index].advance(cuts[streams[index]], mel)

    def _speak(self, windows: dict[DecodeStream, Window]) -> dict[DecodeStream, np.ndarray]:
        streams = [stream for stream, window in windows.items() if window.end > stream.vocoder.spoken]
        spoken: list[DecodeStream] = []
        audio: list[Tensor] = []
        lengths = [windows[stream].stop - windows[stream].start for stream in streams]
        for group in self._vocoder.groups(lengths):
            members = [streams[index] for index in group]
            spoken += members
            audio += speak(self._vocoder, [m.vocoder for m in members], [windows[m] for m in members])
        if not audio:
            return {}
        samples = torch.cat(audio).mul_(LOUDEST).round_().to(torch.int16).cpu().numpy()  # one copy for all
        ends = np.cumsum([len(piece) for piece in audio])
        return dict(zip(spoken, np.split(samples, ends[:-1]), strict=True))
