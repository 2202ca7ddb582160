"""The sizes of a CosyVoice model and the arithmetic of its audio.

All code that counts samples, frames or tokens uses these constants.
The data classes contain the sizes that differ between models. Their defaults are those of the releases.
"""

from dataclasses import dataclass, field
from pathlib import Path

RELEASED_MODEL = "FunAudioLLM/CosyVoice2-0.5B"
LLM_FILE = "llm.pt"  # of the language model, in a model directory
DEMO_MODEL = Path(__file__).with_name("demo_model")  # included in the package, see its README.md
DEFAULT_VOICE = "default"

SAMPLE_RATE = 24_000  # Hz, of generated audio
PROMPT_SAMPLE_RATE = 16_000  # Hz, input of the speech tokenizer and the speaker encoder
TOKEN_RATE = 25  # speech tokens per second
FRAMES_PER_TOKEN = 2  # mel frames per speech token
FRAME_RATE = TOKEN_RATE * FRAMES_PER_TOKEN  # mel frames per second
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
SAMPLES_PER_TOKEN = SAMPLES_PER_FRAME * FRAMES_PER_TOKEN
MEL_BINS = 80
SPEAKER_DIM = 192  # width of a speaker embedding

CHUNK_TOKENS = 25  # the chunk mask's chunk, counted from the start of prompt + generated
CHUNK_FRAMES = CHUNK_TOKENS * FRAMES_PER_TOKEN
LOOKAHEAD_TOKENS = 3  # tokens that the flow encoder reads beyond the last one it speaks
VOCODER_LOOKAHEAD = 4  # frames that CosyVoice3's vocoder reads beyond the one it speaks
F0_LOOKAHEAD = 3  # frames that its pitch predictor reads ahead


@dataclass(frozen=True)
class LanguageModelConfig:
    """Qwen2 decoder over the joint id space, with a head over the speech tokens."""

    hidden_size: int = 896
    intermediate_size: int = 4864
    num_layers: int = 24
    num_heads: int = 14
    num_kv_heads: int = 2
    text_vocab_size: int = 151_936
    max_position: int = 32_768
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6

    @property
    def kv_numbers(self) -> int:
        """Number of keys and values that the KV cache holds for a token."""
        return 2 * self.num_layers * self.num_kv_heads * (self.hidden_size // self.num_heads)


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching: speech tokens to mel. `estimator_*` belong to the U-Net, the others to the token encoder."""

    token_vocab_size: int = 6561
    width: int = 512
    heads: int = 8
    feed_forward: int = 2048
    blocks: int = 6
    up_blocks: int = 4
    estimator_channels: int = 256
    estimator_heads: int = 8
    estimator_head_dim: int = 64
    estimator_blocks: int = 4
    estimator_mid_stages: int = 12
    guidance: float = 0.7


@dataclass(frozen=True)
class DiTFlowConfig:
    """Flow matching with a diffusion transformer, as in Fun-CosyVoice3-0.5B. `look_ahead_width` is the encoder's."""

    token_vocab_size: int = 6561
    look_ahead_width: int = 1024
    width: int = 1024
    blocks: int = 22
    heads: int = 16
    head_dim: int = 64
    feed_forward: int = 2048
    guidance: float = 0.7


@dataclass(frozen=True)
class VocoderConfig:
    """HiFT: mel to waveform."""

    base_channels: int = 512
    f0_channels: int = 512
    harmonics: int = 8  # overtones, without the fundamental
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[int, ...] = (1, 3, 5)
    source_resblock_kernels: tuple[int, ...] = (7, 7, 11)
    source_resblock_dilations: tuple[int, ...] = (1, 3, 5)
    n_fft: int = 16
    hop_length: int = 4
    sine_amplitude: float = 0.1
    noise_amplitude: float = 0.003
    voiced_threshold: float = 10.0  # Hz
    leaky_slope: float = 0.1
    audio_limit: float = 0.99


@dataclass(frozen=True)
class CausalVocoderConfig(VocoderConfig):
    """The causal HiFT of CosyVoice3, which has the same sizes."""


@dataclass(frozen=True)
class ModelConfig:
    """All sizes of one model directory."""

    language_model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    flow: FlowConfig | DiTFlowConfig = field(default_factory=FlowConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
