import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests import small_networks
from vllm_cosyvoice.config import SAMPLES_PER_FRAME
from vllm_cosyvoice.vocoder import Vocoder, VocoderStream, speak
from vllm_cosyvoice.vocoder import stream as stream_module
from vllm_cosyvoice.vocoder.time_stretch import stretch, stretched_frames
from vllm_cosyvoice.vocoder.torch.loading import vocoder_weights
from vllm_cosyvoice.vocoder.torch.spectrum import Spectrum


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return Vocoder.from_state(small_networks.VOCODER, small_networks.vocoder_state())


def spoken(
    vocoder: Vocoder, mel: Tensor, hops: list[int], *, hold_back: int | None = None, speed: float = 1, seed: int = 0
) -> Tensor:
    """The audio of `mel`, given to the vocoder `hops` frames at a time."""
    stream = VocoderStream(vocoder, speed, seed)
    if hold_back is not None:
        stream.hold_back = hold_back
    pieces = []
    for index, piece in enumerate(torch.split(mel, hops)):
        stream.push(piece)
        window = stream.window(last=index == len(hops) - 1)
        if window.end > stream.spoken:
            pieces += speak(vocoder, [stream], [window])
    return torch.cat(pieces)


def test_rows_of_different_lengths_give_what_each_gives_alone(vocoder: Vocoder) -> None:
    rows = small_networks.ragged_rows()
    audio, phases = vocoder(rows)
    for row, piece, phase in zip(rows, audio, phases, strict=True):
        (alone,), (alone_phase,) = vocoder([row])
        assert alone.shape == (SAMPLES_PER_FRAME * (row.end - row.at),)
        assert (piece - alone).abs().max() < 1e-5
        assert torch.allclose(phase, alone_phase)


@pytest.mark.parametrize("hops", [[50, 70], [21, 1, 1, 30, 67], [25, 50, 45], [3, 117], [119, 1]])
def test_pieces_are_the_whole(vocoder: Vocoder, hops: list[int]) -> None:
    mel = small_networks.mel(120)
    whole = spoken(vocoder, mel, [120])
    assert len(whole) == 120 * SAMPLES_PER_FRAME
    assert (spoken(vocoder, mel, hops) - whole).abs().max() < 1e-5


def test_windows_longer_than_a_call_are_spoken_in_several(vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch) -> None:
    mels = [small_networks.mel(frames) for frames in (120, 30)]
    whole = [spoken(vocoder, mel, [len(mel)]) for mel in mels]
    monkeypatch.setattr(stream_module, "LONGEST_WINDOW", 50)
    streams = [VocoderStream(vocoder) for _ in mels]
    for stream, mel in zip(streams, mels, strict=True):
        stream.push(mel)
    pieces = speak(vocoder, streams, [stream.window(last=True) for stream in streams])
    for piece, expected in zip(pieces, whole, strict=True):
        assert piece.shape == expected.shape
        assert (piece - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("hold_back", "error"), [(0, 0.1), (8, 1e-3)])
def test_without_enough_hold_back_they_are_not(vocoder: Vocoder, hold_back: int, error: float) -> None:
    mel = small_networks.mel(120)
    pieces = spoken(vocoder, mel, [50, 70], hold_back=hold_back)
    assert (pieces - spoken(vocoder, mel, [120])).abs().max() > error


def test_pieces_join_where_the_pitch_leaps(vocoder: Vocoder) -> None:
    state = small_networks.vocoder_state()
    state["f0_predictor.classifier.weight"] *= 50
    leaping = Vocoder.from_state(small_networks.VOCODER, state)
    mel = small_networks.mel(120)
    whole, pieces = spoken(leaping, mel, [120]), spoken(leaping, mel, [50, 70])
    assert (pieces - whole).norm() < 1e-4 * whole.norm()


def test_harmonics_go_on_across_a_joint(vocoder: Vocoder) -> None:
    """A window's source from the carried phase on is the whole's: the step at the joint is a step of the sine."""
    source, joint = vocoder.source, 13
    f0 = torch.linspace(110, 240, 40)[None]
    start = torch.zeros(1, source.harmonics, dtype=torch.float64)
    with torch.inference_mode():
        advances, phases = source.phases(f0, start, torch.tensor([0]))
        whole = source(f0, advances, phases, torch.zeros(1, 40 * SAMPLES_PER_FRAME))[0]
        window = f0[:, joint - 5 :]
        advances, carried = source.phases(window, phases[:, joint - 1], torch.tensor([5]))
        part = source(window, advances, carried, torch.zeros(1, 32 * SAMPLES_PER_FRAME))[0]
        _, restarted = source.phases(window, start, torch.tensor([5]))
        clicking = source(window, advances, restarted, torch.zeros(1, 32 * SAMPLES_PER_FRAME))[0]
    expected = whole[joint * SAMPLES_PER_FRAME :]
    assert (part[5 * SAMPLES_PER_FRAME :] - expected).abs().max() < 1e-5
    assert (clicking[5 * SAMPLES_PER_FRAME :] - expected).abs().max() > 0.01


def test_phase_does_not_drift(vocoder: Vocoder) -> None:
    f0 = torch.full((1, 3000), 200.25)  # a minute; 200.25 / 24000 · 480 = 4.005 cycles a frame
    start = torch.zeros(1, vocoder.source.harmonics, dtype=torch.float64)
    _, phases = vocoder.source.phases(f0, start, torch.tensor([0]))
    exact = [3000 * 4005 * harmonic / 1000 % 1 for harmonic in range(1, 10)]
    distance = (phases[0, -1] - torch.tensor(exact, dtype=torch.float64)).abs()
    assert torch.minimum(distance, 1 - distance).max() < 1e-8


def test_source_is_sines_where_voiced_and_louder_noise_where_not(vocoder: Vocoder) -> None:
    frames = 20
    f0 = torch.tensor([[0.0] * frames, [200.0] * frames])
    start = torch.zeros(2, vocoder.source.harmonics, dtype=torch.float64)
    noise = torch.randn(2, frames * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        advances, phases = vocoder.source.phases(f0, start, torch.tensor([0, 0]))
        quiet = vocoder.source(f0, advances, phases, torch.zeros_like(noise))
        noisy = vocoder.source(f0, advances, phases, noise)
    assert quiet[0].std() < 1e-6
    period = 120  # samples of 200 Hz
    steady = quiet[1, 240:-240]
    assert (steady[period:] - steady[:-period]).abs().max() < 1e-4
    assert steady.std() > 0.02
    loudness = (noisy - quiet).std(dim=1) / vocoder.source.mix.weight.norm()
    assert loudness[0] == pytest.approx(0.1 / 3, rel=0.05)
    assert loudness[1] == pytest.approx(0.003, rel=0.05)


def test_noise_is_the_seeds_own(vocoder: Vocoder) -> None:
    mel = small_networks.mel(20)
    one = spoken(vocoder, mel, [20], seed=1)
    assert torch.equal(one, spoken(vocoder, mel, [20], seed=1))
    assert not torch.equal(one, spoken(vocoder, mel, [20], seed=2))


@pytest.mark.parametrize("level", [math.log(1e-5), 0.0, 50.0, -200.0])
def test_any_mel_gives_finite_audio(vocoder: Vocoder, level: float) -> None:
    audio = spoken(vocoder, torch.full((30, 80), level), [15, 15])
    assert audio.isfinite().all()
    assert audio.abs().max() <= small_networks.VOCODER.audio_limit


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.0, 1.1, 1.7, 4.0])
def test_stretch_is_linear_interpolation_at_the_exact_speed(speed: float) -> None:
    mel = small_networks.mel(60)
    expected = F.interpolate(
        mel.T[None], scale_factor=1 / speed, mode="linear", align_corners=False, recompute_scale_factor=False
    )[0].T
    frames = stretched_frames(60, speed, last=True)
    assert torch.allclose(stretch(mel, speed, 0, frames), expected, atol=1e-5)


@pytest.mark.parametrize("speed", [0.25, 0.8, 1.1, 1.7, 4.0])
def test_frames_stretched_early_stay(speed: float) -> None:
    mel = small_networks.mel(90)
    for total in range(1, 91):
        whole = stretch(mel[:total], speed, 0, stretched_frames(total, speed, last=True))
        for early in range(0, total + 1, 7):
            frames = stretched_frames(early, speed, last=False)
            assert frames <= len(whole)
            assert torch.equal(stretch(mel[:early], speed, 0, frames), whole[:frames])


@pytest.mark.parametrize("speed", [0.7, 1.3])
def test_speed_streams_to_what_it_gives_at_once(vocoder: Vocoder, speed: float) -> None:
    mel = small_networks.mel(120)
    whole = spoken(vocoder, mel, [120], speed=speed)
    assert len(whole) == int(120 / speed) * SAMPLES_PER_FRAME
    pieces = spoken(vocoder, mel, [50, 30, 40], speed=speed)
    assert (pieces - whole).abs().max() < 1e-5


def test_spectrum_is_torchs_there_and_back_for_each_row_alone() -> None:
    spectrum = Spectrum(16, 4, "cpu")
    window = torch.hann_window(16)
    lengths = torch.tensor([960, 480])
    signal = torch.randn(2, 960, generator=torch.Generator().manual_seed(0))
    analysed = spectrum.analyse(signal, lengths)
    frames = lengths // 4 + 1
    valid = (torch.arange(analysed.shape[2]) < frames[:, None]).float()
    back = spectrum.synthesise(analysed, valid)
    for row, (samples, count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
        expected = torch.stft(signal[row, :samples], 16, 4, window=window, return_complex=True)
        assert torch.allclose(analysed[row, :, :count], torch.cat([expected.real, expected.imag]), atol=1e-5)
        assert torch.allclose(back[row, :samples], signal[row, :samples], atol=1e-5)


@pytest.mark.parametrize("name", ["ups.0", "resblocks.0.convs1.1"])
def test_weight_norm_is_folded(name: str) -> None:
    state = small_networks.vocoder_state()
    magnitude, direction = (f"{name}.parametrizations.weight.original{index}" for index in (0, 1))
    state[magnitude] = torch.rand(state[magnitude].shape, generator=torch.Generator().manual_seed(0))
    layer = nn.Conv1d(1, 1, 1)
    layer.weight = nn.Parameter(state[direction])
    nn.utils.parametrizations.weight_norm(layer)
    assert isinstance(layer.parametrizations, nn.Module)
    layer.parametrizations.load_state_dict({"weight.original0": state[magnitude], "weight.original1": state[direction]})
    weights = vocoder_weights(state)
    assert torch.allclose(weights[f"generator.{name}.weight"], layer.weight, atol=1e-6)
    assert not [weight for weight in weights if "parametrizations" in weight]


@pytest.mark.parametrize("name", ["conv_pre.parametrizations.weight.original0", "resblocks.3.activations2.0.alpha"])
def test_a_missing_tensor_is_refused(name: str) -> None:
    state = small_networks.vocoder_state()
    del state[name]
    with pytest.raises(ValueError, match="vocoder's weights do not fit"):
        Vocoder.from_state(small_networks.VOCODER, state)


def test_an_unknown_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="surprise"):
        Vocoder.from_state(small_networks.VOCODER, small_networks.vocoder_state() | {"surprise": torch.zeros(1)})
