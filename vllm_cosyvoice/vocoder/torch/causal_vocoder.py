"""The complete causal vocoder of CosyVoice3: converts mel to audio, for rows of different lengths at once."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vllm_cosyvoice.config import VOCODER_LOOKAHEAD, CausalVocoderConfig
from vllm_cosyvoice.nn.layers import load
from vllm_cosyvoice.nn.padding import padded_groups
from vllm_cosyvoice.vocoder.staircase import StaircaseSource
from vllm_cosyvoice.vocoder.torch.causal_f0 import CausalF0Predictor
from vllm_cosyvoice.vocoder.torch.causal_generator import CausalGenerator
from vllm_cosyvoice.vocoder.torch.loading import vocoder_weights
from vllm_cosyvoice.vocoder.torch.spectrum import Spectrum
from vllm_cosyvoice.vocoder.torch.vocoder import PaddedRows, VocoderRow


class CausalVocoder(nn.Module):
    """Converts mel to audio; what is spoken does not depend on mel more than five frames ahead."""

    # A sample depends on the source 13,667 samples (28.5 frames) before it, and the pitch of that frame on eight more.
    context = 37
    # The last three samples of a frame depend on the mel five frames ahead, the others on the mel four frames ahead.
    hold_back = VOCODER_LOOKAHEAD + 1

    def __init__(self, config: CausalVocoderConfig) -> None:
        super().__init__()
        self.f0 = CausalF0Predictor(config.f0_channels)
        self.source = StaircaseSource(config)
        self.generator = CausalGenerator(config)

    @classmethod
    def from_state(
        cls,
        config: CausalVocoderConfig,
        state: Mapping[str, Tensor],
        device: torch.device | str = "cpu",
        data_type: torch.dtype = torch.float32,
    ) -> "CausalVocoder":
        """Create a vocoder from the tensors of `hift.pt`.

        Args:
            data_type: of the generator. The source and the spectrum are at least float32, the pitch is float64.

        Raises:
            ValueError: a tensor is missing, unknown or has another shape than in `config`.
        """
        with torch.device("meta"):
            vocoder = cls(config)
        exact = {name: tensor.to(device, torch.float64) for name, tensor in state.items()}
        load(vocoder, vocoder_weights(exact), "vocoder")
        wide = torch.promote_types(data_type, torch.float32)
        vocoder.source.to(wide).draw_noise()
        vocoder.generator.to(data_type).spectrum = Spectrum(config.n_fft, config.hop_length, device, wide)
        return vocoder

    def groups(self, lengths: Sequence[int]) -> list[list[int]]:
        """Group rows into calls, by index: rows of similar `lengths` (in frames) share one call."""
        return padded_groups(lengths, self.source.noise.device)

    @torch.inference_mode()
    def forward(self, rows: Sequence[VocoderRow]) -> tuple[list[Tensor], Tensor]:
        """Compute the audio of all rows in one call. Arguments and result are those of `Vocoder.forward`."""
        padded = PaddedRows(rows)
        f0 = self.f0(padded.mel)
        _, phases = self.source.phases(f0, padded.phase, padded.at)
        source = self.source(f0, phases, padded.noise(self.source))
        audio = self.generator(padded.mel, source, padded.lengths)
        return padded.spoken(audio, phases)
