"""The GPU's vocoder against the float32 one."""

from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests import small_networks
from tests.cards import H200
from tests.interpreter import DEVICE, INTERPRETED, runs_here
from vllm_cosyvoice.config import CausalVocoderConfig, VocoderConfig
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.vocoder import CausalVocoder, Vocoder, VocoderRow, VocoderStream, speak
from vllm_cosyvoice.vocoder.torch.causal_generator import CausalConv, PaddedConv

SIZES = (12, 48)  # frames
SIGNAL_TO_NOISE = 45  # dB, that of float16
CONFIGS = [
    replace(config, resblock_kernels=(3, 7), resblock_dilations=(1, 3), source_resblock_kernels=(3, 3, 3))
    for config in (small_networks.VOCODER, small_networks.CAUSAL_VOCODER)
]
BOTH = pytest.mark.parametrize("config", CONFIGS, ids=["CosyVoice2", "CosyVoice3"])
Conv = TypeVar("Conv", bound=nn.Conv1d | nn.ConvTranspose1d)

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def large_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the interpreter, which takes its time by the program."""
    from vllm_cosyvoice.vocoder.cuda import convolution

    tile_for = convolution.tile_for

    def large(inputs: int, outputs: int, positions: int, gpu: Gpu) -> convolution.Tile:
        rows = min(4096, max(16, 1 << (positions - 1).bit_length()))
        return tile_for(inputs, outputs, positions, gpu)._replace(m=rows)

    if INTERPRETED:
        monkeypatch.setattr(convolution, "tile_for", large)


@cache
def eager_vocoder(config: VocoderConfig) -> Vocoder | CausalVocoder:
    state = small_networks.vocoder_state(config)
    if isinstance(config, CausalVocoderConfig):
        return CausalVocoder.from_state(config, state, DEVICE)
    return Vocoder.from_state(config, state, DEVICE)


@cache
def packed_vocoder(config: VocoderConfig, sizes: tuple[int, ...] = SIZES) -> Any:
    from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

    return PackedVocoder(eager_vocoder(config), H200.gpu, sizes)


def row(frames: int, at: int = 0) -> VocoderRow:
    phase = torch.linspace(0, 0.9, 9, dtype=torch.float64, device=DEVICE)
    mel = small_networks.mel(frames, seed=frames).to(DEVICE)
    return VocoderRow(mel, phase, at=at, end=frames - at // 2, noise_start=1000 * frames)


def signal_to_noise(exact: Tensor, other: Tensor) -> float:
    assert exact.shape == other.shape
    return float(20 * torch.log10(exact.norm() / (other - exact).norm()))


@runs_here
@BOTH
def test_ragged_rows_are_the_float32_vocoders(config: VocoderConfig) -> None:
    rows = [row(6, at=2), row(1), row(2), row(7)]  # which do not fit in one replay
    exact, exact_phases = eager_vocoder(config)(rows)
    audio, phases = packed_vocoder(config, SIZES[:1])(rows)
    for expected, piece in zip(exact, audio, strict=True):
        assert signal_to_noise(expected, piece) > SIGNAL_TO_NOISE
    assert (phases - exact_phases).abs().max() < (1e-11 if isinstance(config, CausalVocoderConfig) else 1e-6)


@runs_here
@BOTH
def test_pieces_join_to_the_whole(config: VocoderConfig) -> None:
    """The window of the last piece begins in the middle of the utterance."""
    network, packed = eager_vocoder(config), packed_vocoder(config)
    assert (packed.context, packed.hold_back) == (network.context, network.hold_back)
    first = network.context + network.hold_back + 1
    mel = small_networks.mel(first + 1).to(DEVICE)
    joined = []
    for hops in ([first + 1], [first, 1]):
        stream = VocoderStream(packed)
        pieces = []
        for index, piece in enumerate(torch.split(mel, hops)):
            stream.push(piece)
            pieces += speak(packed, [stream], [stream.window(last=index == len(hops) - 1)])
        joined.append(torch.cat(pieces))
    assert signal_to_noise(*joined) > SIGNAL_TO_NOISE


@runs_here
@BOTH
def test_channels_that_are_no_powers_of_two(config: VocoderConfig) -> None:
    """48, 24, 12 and 6: a quarter of those of the demo model."""
    config = replace(config, base_channels=48)
    (exact,), _ = eager_vocoder(config)([row(3)])
    (audio,), _ = packed_vocoder(config, (4,))([row(3)])
    assert signal_to_noise(exact, audio) > SIGNAL_TO_NOISE


@runs_here
@BOTH
def test_any_mel_gives_finite_audio(config: VocoderConfig) -> None:
    rows = [replace(row(2), mel=torch.full((2, 80), level, device=DEVICE)) for level in (50.0, -200.0, -11.5)]
    for piece in packed_vocoder(config)(rows)[0]:
        assert piece.isfinite().all()
        assert piece.abs().max() <= config.audio_limit


@runs_here
def test_a_row_longer_than_any_size_is_refused() -> None:
    with pytest.raises(ValueError, match="49 is more than the largest captured size, 48"):
        packed_vocoder(CONFIGS[0])([row(48)])


@BOTH
def test_a_rehearsal_reads_nothing_of_the_call_before(config: VocoderConfig) -> None:
    """PyTorch refuses an index that is out of range; kernels, which would not, do not run here."""
    from vllm_cosyvoice.gpu.kernel_launch import diverted

    packed = packed_vocoder(config)
    with diverted(lambda *_, **__: None):
        for size in SIZES:
            packed([row(SIZES[-1] - 1)])
            packed._graphs.rehearse(size)


@pytest.mark.skipif(DEVICE == "cpu", reason="CUDA graphs need a GPU")
@BOTH
def test_replayed_is_what_is_computed(config: VocoderConfig) -> None:
    from vllm_cosyvoice.gpu.kernel_launch import compiling
    from vllm_cosyvoice.vocoder.cuda.vocoder import PackedVocoder

    captured = PackedVocoder(eager_vocoder(config), H200.gpu, SIZES)
    with compiling():
        captured.rehearse()
    captured.capture()
    for rows in ([row(15), row(7)], [row(9), row(2, at=1), row(5)], [row(10)]):  # two sizes, one of them twice
        for expected, piece in zip(packed_vocoder(config)(rows)[0], captured(rows)[0], strict=True):
            assert torch.equal(expected, piece)


def windows(*lengths: int) -> tuple[Any, list[slice]]:
    """Windows of `lengths` frames, packed into 16, and where they are."""
    from vllm_cosyvoice.vocoder.cuda.convolution import Windows

    starts, ends = torch.zeros(2, 16, dtype=torch.int32, device=DEVICE)
    places, start = [], 0
    for length in lengths:
        places.append(slice(start, start + length))
        starts[start : start + length + 1], ends[start : start + length + 1] = start, start + length
        start += length + 1
    return Windows(starts, ends, H200.gpu), places


def seeded(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def settled(conv: Conv) -> Conv:
    """`conv` with weights that float16 can hold, always the same."""
    conv.to(DEVICE).requires_grad_(False)
    conv.weight.copy_(0.1 * seeded(*conv.weight.shape).half())
    return conv


@runs_here
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(16, 32, 3, padding=1),
        nn.Conv1d(48, 96, 7, dilation=3, padding=9),
        nn.Conv1d(16, 32, 11, dilation=5, padding=25),
        CausalConv(16, 32, 11, dilation=5),
        PaddedConv(16, 32, 5, right=4),
    ],
    ids=str,
)
def test_convolution_of_each_window_alone(conv: nn.Conv1d) -> None:
    from vllm_cosyvoice.vocoder.cuda.convolution import Convolution, Taps

    conv = settled(conv)
    x, (spans, places) = seeded(1, 16 * 8, conv.in_channels).half(), windows(3, 1, 6)
    out = torch.full((1, 16 * 8, conv.out_channels), torch.nan, device=DEVICE)
    Convolution([Taps.of(conv)], rate=8, dilation=conv.dilation[0])(x, spans, raw=out)
    outside = torch.ones(16 * 8, dtype=torch.bool, device=DEVICE)
    for place in places:
        window = slice(8 * place.start, 8 * place.stop)
        assert torch.allclose(out[0, window], conv(x[0, window].float().T).T, atol=1e-4)
        outside[window] = False
    assert (out[0, outside] == 0).all()


@runs_here
def test_convolutions_side_by_side_and_summed() -> None:
    from vllm_cosyvoice.vocoder.cuda.convolution import Activation, Convolution, Taps

    convs = [settled(nn.Conv1d(16, 16, kernel, padding=kernel // 2)) for kernel in (7, 3)]
    x, (spans, (place,)) = seeded(2, 16, 16).half(), windows(9)
    expected = torch.stack([conv(plane[place].float().T).T for conv, plane in zip(convs, x, strict=True)])
    taps = [Taps.of(conv) for conv in convs]

    alphas, inverses = [20 * seeded(16), seeded(16)], [seeded(16), seeded(16) + 1]
    snakes = Activation.snake(alphas, inverses)
    raw = torch.empty(2, 16, 16, device=DEVICE)
    active = Convolution(taps, rate=1)(x, spans, raw=raw, residual=x, activation=snakes)
    added = expected + x[:, place].float()
    assert torch.allclose(raw[:, place], added, atol=1e-4)
    for plane, alpha, inverse in zip(range(2), alphas, inverses, strict=True):
        snake = added[plane] + (alpha * added[plane]).sin() ** 2 * inverse
        assert torch.allclose(active[plane, place].float(), snake, atol=5e-3, rtol=1e-3)

    mean = Convolution(taps, rate=1, summed=True)(x, spans, residual=x, scale=0.5, activation=Activation(slope=0.1))
    assert torch.allclose(mean[0, place].float(), F.leaky_relu(added.mean(0), 0.1), atol=1e-3, rtol=1e-3)


@runs_here
@pytest.mark.parametrize(("stride", "kernel", "shift"), [(8, 16, 0), (5, 11, 0), (3, 7, 1)])
def test_transposed_convolution(stride: int, kernel: int, shift: int) -> None:
    from vllm_cosyvoice.vocoder.cuda.convolution import Convolution, Taps

    conv = settled(nn.ConvTranspose1d(16, 16, kernel, stride=stride, padding=(kernel - stride) // 2))
    x, (spans, places) = seeded(1, 16, 16).half(), windows(3, 1, 6)
    out = torch.full((1, 16 * stride, 16), torch.nan, device=DEVICE)
    up = Convolution([Taps.transposed(conv, shift)], rate=1, phases=stride, extra=(0, shift))
    up(x, spans, raw=out)
    for place in places:
        window = slice(stride * place.start + shift, stride * place.stop + shift)
        assert torch.allclose(out[0, window], conv(x[0, place].float().T).T, atol=1e-4)


@runs_here
@pytest.mark.parametrize(("repeats", "kernel", "shift"), [(8, 16, 0), (5, 11, 0), (3, 7, 1)])
def test_convolution_of_repeated_input(repeats: int, kernel: int, shift: int) -> None:
    from vllm_cosyvoice.vocoder.cuda.convolution import Convolution, Taps

    conv = settled(CausalConv(16, 16, kernel))
    x, (spans, places) = seeded(1, 16, 16).half(), windows(3, 1, 6)
    out = torch.full((1, 16 * repeats, 16), torch.nan, device=DEVICE)
    up = Convolution([Taps.repeated(conv, repeats, shift)], rate=1, phases=repeats, extra=(0, shift))
    up(x, spans, raw=out)
    for place in places:
        window = slice(repeats * place.start + shift, repeats * place.stop + shift)
        repeated = x[0, place].float().T.repeat_interleave(repeats, dim=1)
        assert torch.allclose(out[0, window], conv(repeated).T, atol=5e-3)  # sums of taps are rounded, too


@runs_here
@pytest.mark.parametrize(("stride", "kernel"), [(15, 30), (3, 6), (1, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_strided_convolution(stride: int, kernel: int, causal: bool) -> None:
    from vllm_cosyvoice.vocoder.cuda.convolution import Convolution, Taps

    left, right = (stride - 1, 0) if causal else (stride // 2, stride // 2)
    conv = settled(PaddedConv(16, 16, kernel, stride=stride, left=left, right=right))
    x, (spans, places) = seeded(1, 16 * stride, 16).half(), windows(3, 1, 6)
    out = torch.full((1, 16, 16), torch.nan, device=DEVICE)
    Convolution([Taps.of(conv)], rate=1, stride=stride, extra=(1, 0))(x, spans, raw=out)
    for place in places:
        heard = slice(stride * place.start, stride * place.stop + 1)
        assert torch.allclose(out[0, place], conv(x[0, heard].float().T).T[: place.stop - place.start], atol=1e-4)


@runs_here
def test_what_overflows_saturates() -> None:
    from vllm_cosyvoice.vocoder.cuda.convolution import Activation, Convolution, Taps

    conv = settled(nn.Conv1d(16, 16, 1))
    conv.weight.fill_(1)
    x, (spans, _) = torch.full((1, 16, 16), 6e4, dtype=torch.float16, device=DEVICE), windows(9)
    out = Convolution([Taps.of(conv)], rate=1)(x, spans, activation=Activation(slope=0.1))
    assert (out[0, :9] == torch.finfo(torch.float16).max).all()
