"""Recordings of any format come in as the same samples; what can't be used is refused with a cure."""

import io
import logging
import wave
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from vllm_cosyvoice.voice.audio import MAX_RATE, MIN_RATE, AudioError, check_audio, load_audio, resample


def tone(seconds: float, rate: int = 24_000, amplitude: float = 0.5, frequency: float = 440.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 24_000) -> bytes:
    """16-bit WAV of samples [n] or [n, channels]."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return file.getvalue()


def encoded(samples: np.ndarray, rate: int, container: str, codec: str) -> bytes:
    """Mono `samples` in another format."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 192_000])
def test_wav_of_any_rate_keeps_its_samples(rate: int) -> None:
    expected = tone(1.5, rate)
    samples, loaded_rate = load_audio(wav(expected, rate))
    assert samples.dtype == np.float32
    assert (loaded_rate, samples.shape) == (rate, expected.shape)
    assert np.abs(samples - expected).max() < 1e-4


def test_a_title_that_is_no_utf_8_is_no_reason_to_refuse() -> None:
    expected = tone(1.5)
    title = b"LIST\x10\0\0\0INFOINAM\x04\0\0\0Caf\xe9"
    data = wav(expected) + title
    data = data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]
    assert len(load_audio(data)[0]) == len(expected)


def test_channels_are_averaged() -> None:
    left, right = tone(1), tone(1, frequency=1000.0)
    samples, _ = load_audio(wav(np.stack([left, right, left * 0, left * 0], axis=1)))
    assert np.abs(samples - (left + right) / 4).max() < 1e-4


@pytest.mark.parametrize("louder", [0, 1])
def test_of_channels_that_cancel_each_other_the_louder_is_heard(louder: int) -> None:
    """One wire of a microphone the wrong way round: the mean of the channels is silence."""
    channels = np.stack([tone(1), -tone(1)], axis=1)
    channels[:, 1 - louder] *= 0.9
    samples, _ = load_audio(wav(channels))
    assert np.abs(samples - channels[:, louder]).max() < 1e-4


def test_a_silent_channel_beside_the_voice_is_averaged() -> None:
    samples, _ = load_audio(wav(np.stack([tone(1), tone(1) * 0], axis=1)))
    assert np.abs(samples - tone(1) / 2).max() < 1e-4


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("wav", "pcm_f32le"),
        ("wav", "pcm_s24le"),
        ("wav", "pcm_u8"),
        ("wav", "pcm_mulaw"),
        ("flac", "flac"),
        ("mp3", "libmp3lame"),
        ("ogg", "libopus"),
        ("mp4", "aac"),
        ("adts", "aac"),
        ("webm", "libopus"),
        ("matroska", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
    ],
)
def test_every_usual_format_is_heard(container: str, codec: str) -> None:
    expected = tone(2, 48_000)
    samples, rate = load_audio(encoded(expected, 48_000, container, codec))
    assert rate == 48_000
    assert len(samples) == pytest.approx(len(expected), abs=0.1 * rate)  # lossy codecs pad
    middle = samples[len(samples) // 4 : len(samples) // 2]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * rate / len(middle) == pytest.approx(440, abs=3)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("mp3", "mp3", 24_000),
        ("webm", "libopus", 48_000),
        ("wav", "pcm_s16le", 24_000),
        ("wav", "pcm_f32le", 24_000),
        ("aiff", "pcm_s16be", 24_000),
        ("au", "pcm_s16be", 24_000),
    ],
)
def test_a_file_that_was_cut_short_is_refused(container: str, codec: str, rate: int) -> None:
    """An upload that broke off: the rest of its transcript would be spoken ahead of the text."""
    whole = encoded(tone(6, rate), rate, container, codec)
    assert len(load_audio(whole)[0]) > 5.9 * rate
    with pytest.raises(AudioError, match=r"of the 6\.0 s .*cut short"):
        load_audio(whole[: len(whole) * 7 // 10])


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_f32le"])
def test_a_recording_that_was_streamed_has_no_length_in_its_header(size: int, codec: str) -> None:
    data = bytearray(encoded(tone(2), 24_000, "wav", codec))
    for name, offset in (b"RIFF", 4), (b"data", 4), (b"fact", 8):
        if (place := data.find(name)) >= 0:
            data[place + offset : place + offset + 4] = size.to_bytes(4, "little")
    assert len(load_audio(bytes(data))[0]) == 48_000


def test_a_path_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(1)))
    assert len(load_audio(tmp_path / "a.wav")[0]) == len(load_audio(str(tmp_path / "a.wav"))[0]) == 24_000
    with pytest.raises(FileNotFoundError):
        load_audio(tmp_path / "b.wav")


def test_an_unusual_rate_is_brought_to_48_khz() -> None:
    samples, rate = load_audio(wav(tone(2, 44_099), 44_099))
    assert rate == 48_000
    assert len(samples) == pytest.approx(96_000, abs=100)


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (tone(0.99), "needs at least 1 s"),
        (tone(30.1), "longer than 30 s"),
        (np.zeros(24_000, np.float32), "silent"),
        (np.zeros(0, np.float32), r"empty|at least 1 s"),
    ],
)
def test_unusable_recordings_are_refused(samples: np.ndarray, sentence: str) -> None:
    with pytest.raises(AudioError, match=sentence):
        check_audio(*load_audio(wav(samples)))


def test_a_file_may_be_longer_than_its_speech() -> None:
    assert len(load_audio(wav(tone(60, 8_000), 8_000))[0]) == 60 * 8_000
    with pytest.raises(AudioError, match="longer than 60 s"):
        load_audio(wav(tone(60.1, 8_000), 8_000))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers_are_refused(poison: float) -> None:
    samples = tone(1)
    samples[100] = poison
    with pytest.raises(AudioError, match="not finite"):
        check_audio(samples, 24_000)
    with pytest.raises(AudioError, match="not finite"):
        load_audio(encoded(samples, 24_000, "wav", "pcm_f32le"))


def test_samples_of_a_wrong_scale_or_shape_are_refused() -> None:
    with pytest.raises(AudioError, match=r"scale them to \[−1, 1\]"):
        check_audio(tone(1) * 32768, 24_000)
    with pytest.raises(AudioError, match="one channel of floats"):
        check_audio(np.stack([tone(1), tone(1)]), 24_000)
    with pytest.raises(AudioError, match="one channel of floats"):
        check_audio((tone(1) * 32767).astype(np.int16), 24_000)


@pytest.mark.parametrize("rate", [MIN_RATE - 25, MAX_RATE + 25, 0, -16_000, 44_099])
def test_sample_rates_out_of_reach_are_refused(rate: int) -> None:
    with pytest.raises(AudioError, match="sample rate"):
        check_audio(tone(1), rate)


def test_a_file_of_a_strange_rate_is_refused() -> None:
    with pytest.raises(AudioError, match="sample rate is 100 Hz"):
        load_audio(wav(tone(100, 100, frequency=10.0), 100))


@pytest.mark.parametrize("length", [1.0, 30.0])
def test_the_limits_themselves_are_allowed(length: float) -> None:
    samples, rate = load_audio(wav(tone(length)))
    check_audio(samples, rate)
    assert len(samples) == 24_000 * length


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"RIFF\x00\x00\x00\x00WAVE", wav(tone(1))[:40], b"\xff\xfb\x90" * 10, bytes(1000)]
)
def test_what_is_no_recording_is_refused(data: bytes) -> None:
    with pytest.raises(AudioError):
        load_audio(data)


def test_a_playlist_opens_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ffmpeg follows playlists: whoever sends one would read the server's files, or make it open connections."""
    monkeypatch.chdir(tmp_path)
    recording = tmp_path / "private.wav"
    recording.write_bytes(wav(tone(2)))
    for place in ("private.wav", str(recording), f"file://{recording}"):
        concat = f"ffconcat version 1.0\nfile {place}\n"
        hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{place}\n#EXT-X-ENDLIST\n"
        for playlist in (concat, hls):
            with pytest.raises(AudioError, match="can't be decoded"):
                load_audio(playlist.encode())


def test_a_decompression_bomb_is_not_decoded_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 minutes of a constant take 200 kB as FLAC; what comes out of the decoder is counted."""
    bomb = encoded(np.full(20 * 60 * 8_000, 0.5, np.float32), 8_000, "flac", "flac")
    decoded = 0

    class CountingResampler:
        def __init__(self, **options: Any) -> None:
            self.inner = av.audio.resampler.AudioResampler(**options)

        def resample(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
            nonlocal decoded
            decoded += frame.samples if frame else 0
            frames: list[av.AudioFrame] = self.inner.resample(frame)
            return frames

    monkeypatch.setattr(av, "AudioResampler", CountingResampler)
    with pytest.raises(AudioError, match="longer than 60 s"):
        load_audio(bomb)
    assert 60 * 8_000 < decoded <= 61 * 8_000


def test_clipping_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_audio(wav(tone(1)))
        assert not caplog.records
        samples, _ = load_audio(wav(np.clip(tone(1, amplitude=3.0), -1, 1)))
    assert "clipped" in caplog.text
    assert len(samples) == 24_000


def test_a_video_speaks_with_its_sound() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        video = output.add_stream("mpeg4", rate=10)
        assert isinstance(video, av.VideoStream)
        video.width = video.height = 64
        audio = output.add_stream("pcm_s16le", rate=24_000)
        assert isinstance(audio, av.AudioStream)
        audio.layout = "mono"
        frame = av.AudioFrame.from_ndarray((tone(1)[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 24_000
        output.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(audio.encode(frame))
        for stream in (video, audio):
            output.mux(stream.encode(None))
    assert len(load_audio(file.getvalue())[0]) == 24_000


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_the_tone(rate: int) -> None:
    resampled = resample(torch.from_numpy(tone(1, rate)), rate, 24_000).numpy()
    assert len(resampled) == 24_000
    assert np.abs(resampled - tone(1))[500:-500].max() < 5e-3
