"""The attainable time of a stage on a GPU: the time for its arithmetic or for its bytes, whichever is longer.

    attainable = max(operations / CHIPS.operations, bytes / CHIPS.bandwidth)

For the released sizes, counting matrix products (2 operations per weight and frame or token) and attention:

- A flow solve is 20 forward passes of the estimator, 10 steps with and without the condition:
  20 · Σ rows (132.5e6 · T + 4 · 512 · 56 · pairs) operations, for T frames, including the prompt, and pairs of frames
  that see each other: T² without the chunk mask, T (T + 50) / 2 with it. Each of 10 steps reads 66.25e6 weights of
  two bytes. The encoder (1 to 2 % of that) is ignored.
  CosyVoice3's estimator takes 20 · Σ rows (377.5e6 · T + 4 · 1024 · 22 · pairs) and reads 188.8e6 weights.
- CosyVoice2's vocoder takes 612e6 operations per frame, CosyVoice3's 618e6, as an output of its upsampling depends on
  three inputs. The convolutions read or write each tensor of two-byte elements once:
  Σ stages 73 · channels · samples per frame.
- A step of the language model takes 2 · 363.8e6 operations per request and 4 · 896 · 24 per token of context; it reads
  363.8e6 weights of two bytes, and 12,288 bytes per token of context.
"""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.gpu_watch import gpus
from vllm_cosyvoice.config import CHUNK_FRAMES, CausalVocoderConfig, DiTFlowConfig, ModelConfig


class Chip(NamedTuple):
    """Rates per second."""

    operations: float  # attained by large 16-bit matrix products on random data
    bandwidth: float  # bytes, from the data sheet of the memory


CHIPS = {"NVIDIA H200": Chip(790e12, 4.8e12), "NVIDIA H100 80GB HBM3": Chip(790e12, 3.35e12)}

STEPS, FORWARDS = 10, 20


class Estimator(NamedTuple):
    """The work of one forward pass."""

    weights: float
    pair: float  # operations per pair of frames that see each other


UNET, DIT = Estimator(66.25e6, 4 * 512 * 56), Estimator(188.8e6, 4 * 1024 * 22)
VOCODER_FRAME, CAUSAL_VOCODER_FRAME, VOCODER_TENSORS = 612e6, 618e6, 73
LANGUAGE_MODEL_WEIGHTS, LANGUAGE_MODEL_PAIR, LANGUAGE_MODEL_CACHE = 363.8e6, 4 * 896 * 24, 12_288
BYTES = 2  # of a weight or an activation


COSYVOICE2, COSYVOICE3 = ModelConfig(), ModelConfig(flow=DiTFlowConfig(), vocoder=CausalVocoderConfig())


class Roofline:
    """Attainable milliseconds on a chip with a model of the released sizes; None for an unknown chip."""

    def __init__(self, chip: Chip | None, config: ModelConfig = COSYVOICE2) -> None:
        self._chip, self._config = chip, config

    @classmethod
    def here(cls, config: ModelConfig) -> "Roofline":
        """The roofline of this machine's first GPU, for `config`."""
        names = gpus("name") if config in (COSYVOICE2, COSYVOICE3) else []
        return cls(CHIPS.get(names[0]) if names else None, config)

    def flow(self, frames: Sequence[int], *, chunk_mask: bool) -> float | None:
        """One solve for rows of `frames` each, including the prompts."""
        pairs = sum(count * (count + CHUNK_FRAMES) / 2 if chunk_mask else count * count for count in frames)
        estimator = DIT if isinstance(self._config.flow, DiTFlowConfig) else UNET
        operations = FORWARDS * (2 * estimator.weights * sum(frames) + estimator.pair * pairs)
        return self._ms(operations, STEPS * BYTES * estimator.weights)

    def vocoder(self, frames: int) -> float | None:
        """The vocoder for `frames` in total."""
        config = self._config.vocoder
        operations = CAUSAL_VOCODER_FRAME if isinstance(config, CausalVocoderConfig) else VOCODER_FRAME
        frame_bytes, rate = 0.0, 1
        for stage, factor in enumerate(config.upsample_rates):
            rate *= factor
            frame_bytes += VOCODER_TENSORS * BYTES * (config.base_channels >> stage + 1) * rate
        return self._ms(operations * frames, frame_bytes * frames)

    def decode(self, frames: Sequence[int], spoken: int, *, chunk_mask: bool) -> float | None:
        """A solve, then the vocoder for `spoken` frames in total."""
        flow, vocoder = self.flow(frames, chunk_mask=chunk_mask), self.vocoder(spoken)
        return None if flow is None or vocoder is None else flow + vocoder

    def language_model(self, requests: int, context: float) -> float | None:
        """A step of `requests` requests with `context` tokens each."""
        operations = requests * (2 * LANGUAGE_MODEL_WEIGHTS + LANGUAGE_MODEL_PAIR * context)
        return self._ms(operations, BYTES * LANGUAGE_MODEL_WEIGHTS + requests * context * LANGUAGE_MODEL_CACHE)

    def _ms(self, operations: float, transferred: float) -> float | None:
        if self._chip is None:
            return None
        return 1000 * max(operations / self._chip.operations, transferred / self._chip.bandwidth)
