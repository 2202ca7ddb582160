"""Speech tokens to audio, for many streams at once: the flow, then the vocoder.

A streamed utterance is decoded in hops. All hops use attention in chunks of 25 tokens, counted from the start of the
prompt: the chunk mask. So a hop that ends on a chunk boundary gives the same frames as any other series of hops, and a
hop may take as many tokens as have arrived. The flow can remember the chunks of the prompt and of earlier hops; else,
each hop recomputes them.
"""

import ctypes
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import CHUNK_TOKENS, FRAMES_PER_TOKEN, MEL_BINS
from vllm_cosyvoice.decode.hops import Cut
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.flow.backend import open_flow
from vllm_cosyvoice.gpu.device import GIB, Gpu
from vllm_cosyvoice.vocoder import VocoderStream, Window, speak
from vllm_cosyvoice.vocoder.backend import open_vocoder
from vllm_cosyvoice.voice import Voice

if TYPE_CHECKING:
    from vllm_cosyvoice.flow.cuda.flow import PackedFlow

log = logging.getLogger(__name__)

DATA_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
LOUDEST = 32_767  # largest int16
NETWORKS_GIB = 9.0  # of GPU memory: the released networks with their graphs, and all else but the KV cache
OTHERS_GIB = NETWORKS_GIB + 1.0  # with the KV cache of the default size
LIBC = ctypes.CDLL(None)


def needed_gib(model: ModelDirectory, kv_tokens: int, share: float | None) -> float:
    """GiB of GPU memory for everything but what the flow remembers, with a KV cache of `kv_tokens` in 16 bits.

    `share`: of the memory, that vLLM wants to find free at its start (`gpu_memory_utilization`).
    """
    needed = NETWORKS_GIB + 2 * model.config.language_model.kv_numbers * kv_tokens / GIB
    if share and torch.cuda.is_available():
        _, total = torch.cuda.mem_get_info()
        needed = max(needed, share * total / GIB)
    return needed


class SpeechDecoder:
    """The flow and the vocoder of one model, on one device.

    Args:
        device: "auto" is the GPU if there is one.
        data_type: dtype of the flow, "float16", "bfloat16" or "float32"; "auto" is bfloat16 on a GPU and float32 on a
            CPU. The vocoder uses float32, on a GPU float16 for convolutions, and CosyVoice3's float64 for the pitch.
        load_trt: run the flow with TensorRT, if it is installed.
        flow_cache_gib: GiB for the chunks that the flow remembers, on a GPU in its memory; 0: none; None: on a CPU a
            sixteenth of the memory, on a GPU half of the memory that nothing else needs, and at most 512 chunks. In
            plain PyTorch or TensorRT on a GPU, nothing is remembered.
        others_gib: GiB of GPU memory that this default leaves to everything else, such as the language model.
        decoders: number of processes that decode on this GPU and divide the memory for chunks.
        full_attention: of utterances that are not streamed, as in CosyVoice; the flow remembers nothing of them.
            Otherwise, they have the chunk mask, too.

    On a GPU, it compiles all kernels and captures CUDA graphs of a few call sizes. `capture_next` captures the others.

    Raises:
        ValueError: the data type is unknown, or the weights don't match the configuration.
        UnsupportedGpuError: the kernels don't run on this GPU.
        GpuMemoryError: the GPU does not have `flow_cache_gib` free.
    """

    def __init__(
        self,
        model: ModelDirectory,
        device: str | torch.device = "auto",
        data_type: str = "auto",
        *,
        load_trt: bool = False,
        flow_cache_gib: float | None = None,
        others_gib: float = OTHERS_GIB,
        decoders: int = 1,
        full_attention: bool = False,
    ) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        on_gpu = self.device.type == "cuda"
        if data_type == "auto":
            data_type = "bfloat16" if on_gpu else "float32"
        if data_type not in DATA_TYPES:
            raise ValueError(f"data_type is {data_type!r}; choose auto, {', '.join(DATA_TYPES)}")
        if on_gpu:
            Gpu.of(self.device)  # refuses a GPU that can't run the kernels before anything is loaded
        cache_bytes = None if flow_cache_gib is None else int(flow_cache_gib * GIB)
        self._flow = open_flow(
            model,
            self.device,
            DATA_TYPES[data_type],
            load_trt=load_trt,
            cache_bytes=cache_bytes,
            others=int(others_gib * GIB),
            decoders=decoders,
        )
        self._vocoder = open_vocoder(model, self.device)
        self._full_attention = full_attention
        self._packed_flow: PackedFlow | None = None
        if on_gpu:
            self._capture_first()
        self._uploads = torch.cuda.Stream(self.device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._copied = torch.cuda.Event(blocking=True) if on_gpu else None  # type: ignore[no-untyped-call]
        # Tokens; None: depends on the load. On a CPU, calls take so long that it would always be a chunk; fixing it
        # makes equal seeds give equal audio.
        self.usual_first_hop = None if on_gpu else CHUNK_TOKENS
        self.usual_rows = 16 if on_gpu else 1  # streams per call; a CPU gains nothing from batches

    def _capture_first(self) -> None:
        """Compile all kernels and capture the call sizes that are needed first."""
        from vllm_cosyvoice.flow.cuda.flow import PackedFlow  # these imports need Triton
        from vllm_cosyvoice.gpu.kernel_launch import compiling
        from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

        networks: list[PackedFlow | PackedVocoder] = []
        if isinstance(self._vocoder, PackedVocoder):
            networks.append(self._vocoder)
        if isinstance(self._flow, PackedFlow):
            self._packed_flow = self._flow
            networks.append(self._flow)
        with compiling():
            for network in networks:
                network.rehearse()
        for network in networks:
            network.capture()

    def prompt(self, voice: Voice) -> FlowPrompt:
        """Upload `voice` to the device, once for each voice. May run in another thread during `decode`.

        Raises:
            ValueError: the voice's mel does not have two frames per token.
        """
        if voice.mel.shape != (FRAMES_PER_TOKEN * len(voice.speech_tokens), MEL_BINS):
            raise ValueError(
                f"a voice of {len(voice.speech_tokens)} speech tokens needs {FRAMES_PER_TOKEN} mel frames per token,"
                f" not a mel of shape {voice.mel.shape}; encode the recording again"
            )
        with torch.cuda.stream(self._uploads):  # so that the upload and `decode` do not wait for each other
            prompt = FlowPrompt(
                key=voice.key,
                tokens=voice.speech_tokens.tolist(),
                mel=torch.from_numpy(voice.mel).to(self.device),
                speaker=self._flow.speaker(torch.from_numpy(voice.embedding).to(self.device)),
            )
        if self._uploads:
            self._uploads.synchronize()
        return prompt

    def begin(self, utterance: Utterance, prompt: FlowPrompt, first_hop: int | None = CHUNK_TOKENS) -> Utterance:
        """Give `utterance` its voice, and return the utterance.

        Args:
            first_hop: tokens of the first hop at speed 1; at other speeds, the hop has the same duration. If the flow
                remembers, it is rounded up, see `shared_first_hop`. It must end on a chunk boundary, so up to 24 tokens
                are trimmed from the start of the prompt; if the prompt is too short for that, the hop is longer. None:
                nobody waits for the first audio, because an earlier utterance of the request is still being played, so
                an early hop is not needed.

        Raises:
            ValueError: the first hop has no audio, or the utterance is too long.
        """
        vocoder = VocoderStream(self._vocoder, utterance.speed, utterance.seed)
        chunk_mask = utterance.streaming or not self._full_attention
        utterance.begin(prompt, vocoder, first_hop, self._flow.cache, chunk_mask=chunk_mask)
        return utterance

    @property
    def hold_back(self) -> int:
        """How many frames at the end of the mel the vocoder holds back until more mel comes."""
        return self._vocoder.hold_back

    @property
    def remembers(self) -> bool:
        """Whether the flow remembers anything, so that a hop costs little more than its own frames."""
        return self._flow.cache is not None

    @property
    def flow_cache_bytes(self) -> int:
        """Memory of what the flow remembers."""
        return self._flow.cache.nbytes if self._flow.cache else 0

    @torch.inference_mode()
    def decode(self, work: Sequence[tuple[Utterance, Cut]]) -> list[np.ndarray]:
        """Decode each utterance up to its cut, and return its new audio, int16 mono at 24 kHz; it may be empty.

        Utterances of similar length share one flow solve and one vocoder call.
        """
        self._extend_mel([(utterance, cut) for utterance, cut in work if cut.tokens])
        pieces = self._speak(work)
        for utterance, cut in work:
            utterance.hops += 1
            utterance.done = cut.last
        return [pieces.get(utterance, np.empty(0, np.int16)) for utterance, _ in work]

    def remember_prompt(self, utterance: Utterance) -> None:
        """Compute what the flow remembers of the voice of `utterance`, so that its first decode takes less time."""
        self._flow.remember_prompt(utterance.flow_row(Cut(0, last=True)))

    @property
    def capture_is_due(self) -> bool:
        """Whether to call `capture_next` though there is work, see `PackedFlow.capture_is_due`."""
        return self._packed_flow is not None and self._packed_flow.capture_is_due

    def capture_next(self) -> bool:
        """Capture the flow's next call size, if one is left, and return whether more are left.

        Call it in the thread that decodes; it takes some tenths of a second. Until a size is captured, its calls run as
        the next larger captured size, which is up to twice as large.
        """
        try:
            return self._packed_flow is not None and self._packed_flow.capture_next()
        except torch.OutOfMemoryError:
            log.warning("There is not enough GPU memory to capture more call sizes: calls run as larger sizes.")
            self._packed_flow = None
            return False

    def give_back_memory(self) -> None:
        """Return the memory of freed tensors to the system, which takes some milliseconds. Call it when idle.

        On a CPU, glibc keeps this memory, and a decoder of many lengths would grow by hundreds of megabytes.
        """
        if self.device.type == "cpu" and hasattr(LIBC, "malloc_trim"):
            LIBC.malloc_trim(0)

    def _extend_mel(self, work: Sequence[tuple[Utterance, Cut]]) -> None:
        rows = [utterance.flow_row(cut) for utterance, cut in work]
        for group in self._flow.groups([FRAMES_PER_TOKEN * row.spoken for row in rows]):
            for index, mel in zip(group, self._flow([rows[index] for index in group]), strict=True):
                utterance, cut = work[index]
                utterance.advance(cut, mel)

    def _speak(self, work: Sequence[tuple[Utterance, Cut]]) -> dict[Utterance, np.ndarray]:
        ready: list[tuple[Utterance, VocoderStream, Window]] = []
        for utterance, cut in work:
            window = utterance.vocoder.window(last=cut.last)
            if window.end > utterance.vocoder.spoken:
                ready.append((utterance, utterance.vocoder, window))
        spoken: list[Utterance] = []
        audio: list[Tensor] = []
        for group in self._vocoder.groups([window.stop - window.start for _, _, window in ready]):
            utterances, streams, windows = zip(*(ready[index] for index in group), strict=True)
            spoken += utterances
            audio += speak(self._vocoder, streams, windows)
        if not audio:
            return {}
        samples = self._to_host(torch.cat(audio).mul_(LOUDEST).round_().to(torch.int16))  # one copy for all
        ends = np.cumsum([len(piece) for piece in audio])
        return dict(zip(spoken, np.split(samples, ends[:-1]), strict=True))

    def _to_host(self, samples: Tensor) -> np.ndarray:
        """Wait for `samples`. On a GPU, this thread sleeps meanwhile; in `Tensor.cpu`, it would keep a core busy."""
        if self._copied is None:
            return samples.numpy()
        host = torch.empty(samples.shape, dtype=samples.dtype, pin_memory=True)
        host.copy_(samples, non_blocking=True)
        self._copied.record(torch.cuda.current_stream(self.device))
        self._copied.synchronize()
        return host.numpy()
