"""Short-time Fourier transforms as matrix products, for rows of different lengths and without waiting for the device.

The window is a periodic Hann window. Frames are centred: frame k is around sample k · hop. A spectrum is
[rows, n_fft + 2, frames], real parts then imaginary parts. (`torch.istft` reads a value back from the device.)
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Spectrum(nn.Module):
    """Forward and inverse transforms of one size."""

    def __init__(
        self, n_fft: int, hop: int, device: torch.device | str, data_type: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        window = torch.hann_window(n_fft, periodic=True, dtype=torch.float64)
        forward = torch.fft.rfft(torch.diag(window))  # [n_fft, bins]
        unit = torch.eye(n_fft // 2 + 1, dtype=torch.complex128)
        inverse = torch.cat([torch.fft.irfft(unit), torch.fft.irfft(1j * unit)]) * window  # [n_fft + 2, n_fft]
        self.analysis = torch.cat([forward.real, forward.imag], dim=1).to(device, data_type)
        self.synthesis = inverse.to(device, data_type)
        self.squared_window = window.square().to(device, data_type)

    def analyse(self, signal: Tensor, lengths: Tensor) -> Tensor:
        """Compute the spectrum of `signal` [rows, samples], mirrored at both ends of each row's `lengths` samples.

        A row has length / hop + 1 frames; later frames are undefined.
        """
        half = self.n_fft // 2
        positions = torch.arange(-half, signal.shape[1] + half, device=signal.device).abs()
        last = lengths[:, None] - 1
        positions = (last - (last - positions).abs()).clamp(min=0)
        frames = signal.gather(1, positions).unfold(1, self.n_fft, self.hop)
        return (frames @ self.analysis).transpose(1, 2)

    def synthesise(self, spectrum: Tensor, valid: Tensor) -> Tensor:
        """Compute the signal [rows, (frames - 1) · hop] from the frames where `valid` [rows, frames] is 1."""
        half = self.n_fft // 2
        frames = spectrum.transpose(1, 2) @ self.synthesis * valid[..., None]
        envelope = self._overlap_add(self.squared_window * valid[..., None])
        signal = self._overlap_add(frames) / envelope.clamp(min=1e-11)
        return signal[:, half:-half]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        parts = frames.view(*frames.shape[:2], -1, self.hop).unbind(2)
        hops = frames.shape[1] + len(parts) - 1
        shifted = [F.pad(part, (0, 0, shift, hops - frames.shape[1] - shift)) for shift, part in enumerate(parts)]
        return torch.stack(shifted).sum(0).flatten(1)
