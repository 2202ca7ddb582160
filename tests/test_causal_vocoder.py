"""CosyVoice3's vocoder: what is spoken early is what would be spoken at once."""

import json
import math
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import small_networks
from tests.cards import H200
from tests.golden import COSYVOICE3_DATA
from tests.utterances import begun, decode
from tools.random_checkpoint import TINY, TINY3
from tools.random_checkpoint.settings import yaml_text
from vllm_cosyvoice.checkpoint import CheckpointError, ModelDirectory
from vllm_cosyvoice.checkpoint.cosyvoice3 import COSYVOICE3
from vllm_cosyvoice.checkpoint.hyperyaml import HyperYaml
from vllm_cosyvoice.checkpoint.layout import vocoder_layout
from vllm_cosyvoice.checkpoint.sizes import causal_vocoder_config
from vllm_cosyvoice.config import SAMPLES_PER_FRAME, CausalVocoderConfig, ModelConfig, VocoderConfig
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.gpu.device import Gpu
from vllm_cosyvoice.vocoder import CausalVocoder, Vocoder, VocoderRow, VocoderStream, speak
from vllm_cosyvoice.vocoder import stream as stream_module
from vllm_cosyvoice.vocoder.backend import open_vocoder

CONFIG = small_networks.CAUSAL_VOCODER
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-10}
ANY_PRECISION = pytest.mark.parametrize("data_type", ROUNDING)


def lively_state() -> dict[str, Tensor]:
    """Weights whose pitch moves with the mel, between 100 and 200 Hz for most frames."""
    state = small_networks.vocoder_state(small_networks.CAUSAL_VOCODER)
    state["f0_predictor.classifier.weight"] *= 100
    return state


@pytest.fixture(scope="module")
def vocoders() -> dict[torch.dtype, CausalVocoder]:
    return {
        data_type: CausalVocoder.from_state(CONFIG, lively_state(), data_type=data_type)
        for data_type in (*ROUNDING, torch.bfloat16)
    }


@pytest.fixture
def vocoder(vocoders: dict[torch.dtype, CausalVocoder]) -> CausalVocoder:
    return vocoders[torch.float32]


def stream_of(vocoder: CausalVocoder, *, speed: float = 1, seed: int = 0) -> VocoderStream:
    return VocoderStream(vocoder, speed, seed)


def spoken(vocoder: CausalVocoder, mel: Tensor, hops: list[int], stream: VocoderStream | None = None) -> Tensor:
    """The audio of `mel`, given to `stream` `hops` frames at a time."""
    stream = stream or stream_of(vocoder)
    pieces = []
    for index, piece in enumerate(torch.split(mel, hops)):
        stream.push(piece)
        window = stream.window(last=index == len(hops) - 1)
        if window.end > stream.spoken:
            pieces += speak(vocoder, [stream], [window])
    return torch.cat(pieces)


def test_the_tests_mel_has_a_pitch_that_moves_and_is_hardly_clipped(vocoder: CausalVocoder) -> None:
    mel = small_networks.mel(120)
    f0 = vocoder.f0(mel[None])[0]
    assert f0.std() > 10
    assert (f0 > CONFIG.voiced_threshold).float().mean() > 0.9
    audio = spoken(vocoder, mel, [120])
    assert (audio.abs() < CONFIG.audio_limit).float().mean() > 0.9
    assert audio.std() > 0.05


@ANY_PRECISION
@pytest.mark.parametrize("hops", [[50, 70], [1] * 7 + [30, 20, 63], [25, 50, 45], [3, 117], [119, 1]])
def test_pieces_are_the_whole(
    vocoders: dict[torch.dtype, CausalVocoder], data_type: torch.dtype, hops: list[int]
) -> None:
    vocoder, mel = vocoders[data_type], small_networks.mel(120)
    whole, pieces = spoken(vocoder, mel, [120]), spoken(vocoder, mel, hops)
    assert len(whole) == len(pieces) == 120 * SAMPLES_PER_FRAME
    assert (pieces - whole).abs().max() < ROUNDING[data_type]


@ANY_PRECISION
@pytest.mark.parametrize("speed", [0.7, 1.3])
def test_speed_streams_to_what_it_gives_at_once(
    vocoders: dict[torch.dtype, CausalVocoder], data_type: torch.dtype, speed: float
) -> None:
    vocoder, mel = vocoders[data_type], small_networks.mel(120)
    whole = spoken(vocoder, mel, [120], stream_of(vocoder, speed=speed))
    assert len(whole) == int(120 / speed) * SAMPLES_PER_FRAME
    pieces = spoken(vocoder, mel, [50, 30, 40], stream_of(vocoder, speed=speed))
    assert (pieces - whole).abs().max() < ROUNDING[data_type]


@pytest.mark.parametrize(("name", "frames"), [("hold_back", 4), ("context", 30)])
def test_with_less_mel_around_them_they_are_not(
    vocoders: dict[torch.dtype, CausalVocoder], name: str, frames: int
) -> None:
    vocoder, mel = vocoders[torch.float64], small_networks.mel(120)
    stream = stream_of(vocoder)
    setattr(stream, name, frames)
    pieces = spoken(vocoder, mel, [50, 70], stream)
    assert (pieces - spoken(vocoder, mel, [120])).abs().max() > 100 * ROUNDING[torch.float64]


def test_a_sample_reads_four_frames_ahead_and_the_last_three_of_a_frame_read_five(
    vocoders: dict[torch.dtype, CausalVocoder],
) -> None:
    vocoder, mel, changed = vocoders[torch.float64], small_networks.mel(40), 30
    other = mel.clone()
    other[changed] += 1
    differs = (spoken(vocoder, other, [40]) != spoken(vocoder, mel, [40])).nonzero()
    first = (changed - 4) * SAMPLES_PER_FRAME - 3
    assert first <= differs.min() < first + 3


@ANY_PRECISION
def test_rows_of_different_lengths_give_what_each_gives_alone(
    vocoders: dict[torch.dtype, CausalVocoder], data_type: torch.dtype
) -> None:
    vocoder = vocoders[data_type]
    rows = small_networks.ragged_rows()
    audio, phases = vocoder(rows)
    for row, piece, phase in zip(rows, audio, phases, strict=True):
        (alone,), (alone_phase,) = vocoder([row])
        assert alone.shape == (SAMPLES_PER_FRAME * (row.end - row.at),)
        assert (piece - alone).abs().max() < ROUNDING[data_type]
        assert (phase - alone_phase).abs().max() < 1e-9


def test_windows_longer_than_a_call_are_spoken_in_several(
    vocoder: CausalVocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    mels = [small_networks.mel(frames) for frames in (120, 30)]
    whole = [spoken(vocoder, mel, [len(mel)]) for mel in mels]
    monkeypatch.setattr(stream_module, "LONGEST_WINDOW", 60)
    streams = [stream_of(vocoder) for _ in mels]
    for stream, mel in zip(streams, mels, strict=True):
        stream.push(mel)
    pieces = speak(vocoder, streams, [stream.window(last=True) for stream in streams])
    for piece, expected in zip(pieces, whole, strict=True):
        assert (piece - expected).abs().max() < ROUNDING[torch.float32]


def test_source_is_steps_of_sines_where_voiced_and_louder_noise_where_not(vocoder: CausalVocoder) -> None:
    source, frames, pitch = vocoder.source, 20, 203.0
    f0 = torch.tensor([[0.0] * frames, [pitch] * frames])
    start = torch.zeros(2, source.harmonics, dtype=torch.float64)
    draws = torch.rand(frames * SAMPLES_PER_FRAME, source.harmonics, generator=torch.Generator().manual_seed(0))
    noise = source.mixed(draws).expand(2, -1)
    with torch.inference_mode():
        _, phases = source.phases(f0, start, torch.tensor([0, 0]))
        quiet, noisy = (source(f0, phases, each).atanh() for each in (torch.zeros_like(noise), noise))
    weight, bias = source.mix.weight[0].double(), float(source.mix.bias)
    assert (quiet[0] - bias).abs().max() < 1e-6
    steps = quiet[1].view(frames, SAMPLES_PER_FRAME)
    assert torch.equal(steps, steps[:, :1].expand_as(steps))
    harmonics = torch.arange(1, source.harmonics + 1)
    for frame in range(frames):
        sines = (2 * math.pi * harmonics * pitch / 50 * (frame + 1)).sin()
        assert float(steps[frame, 0]) == pytest.approx(0.1 * float(weight @ sines.double()) + bias, abs=1e-5)
    assert ((noisy - quiet)[0] - 0.1 / 3 * noise[0]).abs().max() < 1e-6
    assert ((noisy - quiet)[1] - 0.003 * noise[1]).abs().max() < 1e-6


def test_noise_is_the_references(vocoder: CausalVocoder) -> None:
    """It draws a table when it has made its networks, all from one generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.randn(1, 80, 15_000)
        nn.Embedding(6561, 80)
        nn.Linear(192, 80)
        nn.Conv1d(80, 512, 4)
        for _ in range(4):
            nn.Conv1d(512, 512, 3)
        nn.Linear(512, 1)
        torch.rand(1, 9)
        table = torch.rand(1, 1000, 9)[0]
    assert table[0, :3].tolist() == pytest.approx([0.9228, 0.4774, 0.8271], abs=1e-4)
    assert torch.allclose(vocoder.source.noise_at(torch.tensor([0]), 1000)[0], table @ vocoder.source.mix.weight[0])


def test_noise_is_the_seeds_own(vocoder: CausalVocoder) -> None:
    mel = small_networks.mel(20)
    one, again, other = (spoken(vocoder, mel, [20], stream_of(vocoder, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("level", [math.log(1e-5), 0.0, 50.0, -200.0])
def test_any_mel_gives_finite_audio(vocoder: CausalVocoder, level: float) -> None:
    audio = spoken(vocoder, torch.full((30, 80), level), [15, 15])
    assert audio.isfinite().all()
    assert audio.abs().max() <= CONFIG.audio_limit


def test_bfloat16_is_near(vocoders: dict[torch.dtype, CausalVocoder]) -> None:
    mel = small_networks.mel(60)
    expected, audio = (spoken(vocoders[data_type], mel, [60]) for data_type in (torch.float32, torch.bfloat16))
    assert audio.dtype == torch.float32
    assert (audio - expected).norm() < 0.2 * expected.norm()


def test_a_call_reads_nothing_back_from_the_device() -> None:
    """On the meta device, which has no values to read."""
    state = {name: tensor.to("meta") for name, tensor in lively_state().items()}
    vocoder = CausalVocoder.from_state(CONFIG, state, "meta")
    phase = torch.zeros(9, dtype=torch.float64, device="meta")
    rows = [VocoderRow(torch.zeros(frames, 80, device="meta"), phase, 1, frames, 0) for frames in (30, 20)]
    audio, phases = vocoder(rows)
    assert [len(piece) for piece in audio] == [29 * SAMPLES_PER_FRAME, 19 * SAMPLES_PER_FRAME]
    assert phases.shape == (2, 9)


def test_the_weights_of_a_cosyvoice2_are_refused() -> None:
    with pytest.raises(ValueError, match="vocoder's weights do not fit"):
        CausalVocoder.from_state(CONFIG, small_networks.vocoder_state())


@pytest.mark.parametrize(("size", "channels"), [("small", 64), ("full", 512)])
def test_layout_is_that_of_the_reference(size: str, channels: int) -> None:
    manifest = json.loads((COSYVOICE3_DATA / "manifest.json").read_text())
    config = CausalVocoderConfig(base_channels=channels, f0_channels=channels)
    layout = {name: list(shape) for name, shape in vocoder_layout(config).items()}
    assert layout == manifest[f"hift.{size}"]


def settings_with(tmp_path: Path, look_right: int) -> HyperYaml:
    path = tmp_path / "cosyvoice3.yaml"
    path.write_text(yaml_text(TINY3).replace("conv_pre_look_right: 4", f"conv_pre_look_right: {look_right}"))
    return HyperYaml(path)


def test_sizes_are_read(tmp_path: Path) -> None:
    config = causal_vocoder_config(settings_with(tmp_path, 4))
    assert config == CausalVocoderConfig(**vars(TINY.vocoder))
    assert config != TINY.vocoder  # the class tells which network it is


def test_another_look_ahead_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="conv_pre_look_right to 3, but this engine is built for 4"):
        COSYVOICE3.check(settings_with(tmp_path, 3))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    path: Path = tmp_path_factory.mktemp("model")
    torch.save(small_networks.flow_state(), path / "flow.pt")
    torch.save(small_networks.vocoder_state(small_networks.CAUSAL_VOCODER), path / "hift.pt")
    return ModelDirectory(path, ModelConfig(flow=small_networks.FLOW, vocoder=CONFIG))


def test_a_decoder_speaks_in_hops_what_it_speaks_at_once(model: ModelDirectory) -> None:
    decoder = SpeechDecoder(model, "cpu")
    prompt = FlowPrompt("none", [], torch.zeros(0, 80), torch.zeros(80))
    tokens = np.random.default_rng(0).integers(0, 6561, 130).tolist()

    def audio_of(utterance: Utterance, arrivals: list[int]) -> list[np.ndarray]:
        pieces = []
        for arrived in arrivals:
            utterance.push(tokens[len(utterance.tokens) : arrived])
            pieces += decode(decoder, utterance)
        utterance.push(tokens[len(utterance.tokens) :])
        utterance.finish()
        return pieces + decode(decoder, utterance)

    (whole,) = audio_of(begun(decoder, prompt, first_hop=200), [])
    pieces = audio_of(begun(decoder, prompt), [28, 60, 110])
    assert [len(piece) // SAMPLES_PER_FRAME for piece in pieces] == [45, 50, 100, 65]
    assert len(whole) == 2 * 130 * SAMPLES_PER_FRAME
    assert np.abs(np.concatenate(pieces).astype(int) - whole).max() <= 4


def test_the_class_of_the_sizes_and_the_device_choose_the_network(
    model: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_vocoder(model, torch.device("cpu")), CausalVocoder)
    monkeypatch.setattr(ModelDirectory, "vocoder_state", dict)
    monkeypatch.setattr(Gpu, "of", lambda device: H200.gpu)
    packed = Mock()
    monkeypatch.setattr("vllm_cosyvoice.vocoder.cuda.vocoder.PackedVocoder", packed)
    cosyvoice2 = ModelDirectory(Path(), ModelConfig(vocoder=VocoderConfig()))
    networks: list[tuple[ModelDirectory, type]] = [(cosyvoice2, Vocoder), (model, CausalVocoder)]
    for directory, network in networks:
        loaded = Mock()
        monkeypatch.setattr(network, "from_state", loaded)
        assert open_vocoder(directory, torch.device("cpu")) is loaded.return_value
        assert open_vocoder(directory, torch.device("cuda")) is packed.return_value
        packed.assert_called_with(loaded.return_value, H200.gpu)
