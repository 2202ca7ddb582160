from pathlib import Path

import numpy as np
import pytest
import torch

from tests import small_networks
from tests.utterances import begun, decode
from vllm_cosyvoice.checkpoint import ModelDirectory
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN, ModelConfig
from vllm_cosyvoice.decode.decoder import SpeechDecoder
from vllm_cosyvoice.decode.utterance import FlowPrompt, Utterance
from vllm_cosyvoice.limits import MAX_TOKENS
from vllm_cosyvoice.voice import Voice

ONE_HOP = 200  # tokens; trims a prompt as the usual 25 do
ROUNDING = 4  # of int16; 2 with several threads, which add up in another order


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    path: Path = tmp_path_factory.mktemp("model")
    torch.save(small_networks.flow_state(), path / "flow.pt")
    torch.save(small_networks.vocoder_state(), path / "hift.pt")
    config = ModelConfig(flow=small_networks.FLOW, vocoder=small_networks.VOCODER)
    return ModelDirectory(path, config)


@pytest.fixture(scope="module")
def decoder(model: ModelDirectory) -> SpeechDecoder:
    return SpeechDecoder(model, "cpu")


def voice(tokens: int, seed: int = 0) -> Voice:
    draws = np.random.default_rng(seed)
    return Voice(
        transcript="",
        speech_tokens=draws.integers(0, 6561, tokens).astype(np.int32),
        mel=small_networks.mel(2 * tokens, seed).numpy(),
        embedding=draws.normal(size=192).astype(np.float32),
        key=str(seed),
    )


def speech(count: int, seed: int = 9) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, 6561, count).tolist()
    return tokens


@pytest.fixture(scope="module")
def prompt(decoder: SpeechDecoder) -> FlowPrompt:
    return decoder.prompt(voice(80))


def drain(decoder: SpeechDecoder, utterance: Utterance) -> np.ndarray:
    pieces = []
    while utterance.next_cut():
        pieces += decode(decoder, utterance)
    return np.concatenate(pieces)


def at_once(decoder: SpeechDecoder, utterance: Utterance, tokens: list[int]) -> np.ndarray:
    utterance.push(tokens)
    utterance.finish()
    audio = drain(decoder, utterance)
    assert utterance.done
    return audio


def in_pieces(decoder: SpeechDecoder, utterance: Utterance, tokens: list[int], step: int) -> np.ndarray:
    pieces = [np.empty(0, np.int16)]
    for start in range(0, len(tokens), step):
        utterance.push(tokens[start : start + step])
        if utterance.next_cut():
            pieces += decode(decoder, utterance)
    utterance.finish()
    return np.concatenate([*pieces, drain(decoder, utterance)])


def difference(actual: np.ndarray, expected: np.ndarray) -> int:
    assert actual.shape == expected.shape
    return int(np.abs(actual.astype(int) - expected).max(initial=0))


@pytest.mark.parametrize("step", [1, 28, 60, 140])
@pytest.mark.parametrize("prompt_tokens", [0, 13, 80])
def test_any_arrival_of_tokens_gives_the_same_speech(decoder: SpeechDecoder, step: int, prompt_tokens: int) -> None:
    prompt, tokens = decoder.prompt(voice(prompt_tokens)), speech(190)
    whole, utterance = begun(decoder, prompt, first_hop=ONE_HOP), begun(decoder, prompt)
    expected = at_once(decoder, whole, tokens)
    assert whole.hops == 1
    audio = in_pieces(decoder, utterance, tokens, step)
    assert utterance.hops > 1
    assert len(audio) == 190 * SAMPLES_PER_TOKEN
    assert (utterance.vocoder.mel - whole.vocoder.mel).abs().max() < 1e-4
    assert difference(audio, expected) <= ROUNDING


def test_a_cpu_has_nothing_to_capture(decoder: SpeechDecoder) -> None:
    assert not decoder.capture_next()


def test_audio_is_int16_mono(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    audio = at_once(decoder, begun(decoder, prompt), speech(10))
    assert audio.dtype == np.int16
    assert audio.shape == (10 * SAMPLES_PER_TOKEN,)
    assert np.abs(audio).max() > 100


def test_hops_of_a_prompt_trimmed_to_fit(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    """80 tokens of prompt lose 5; then every 25 tokens and the look-ahead make a hop."""
    utterance, tokens = begun(decoder, prompt), speech(400)
    assert len(utterance.prompt.tokens) == 75
    assert utterance.prompt.tokens == prompt.tokens[5:]
    assert torch.equal(utterance.prompt.mel, prompt.mel[10:])
    arrived = []
    for count in range(1, 110):
        utterance.push(tokens[count - 1 : count])
        if utterance.next_cut():
            arrived.append(count)
            decode(decoder, utterance)
    assert arrived == [28, 53, 78, 103]


@pytest.mark.parametrize(
    ("prompt_tokens", "first_hop", "first_cut"),
    [(80, 25, 25), (80, 10, 10), (55, 10, 20), (13, 25, 37), (0, 25, 25), (0, 10, 25), (75, 25, 25), (15, 10, 10)],
)
def test_first_hop_is_as_asked_or_the_next_end_of_a_chunk(
    decoder: SpeechDecoder, prompt_tokens: int, first_hop: int, first_cut: int
) -> None:
    utterance = begun(decoder, decoder.prompt(voice(prompt_tokens)), first_hop=first_hop)
    utterance.push(speech(first_cut + 2))
    assert not utterance.next_cut()
    utterance.push(speech(1))
    assert utterance.next_cut()
    decode(decoder, utterance)
    assert len(utterance.vocoder.mel) == 2 * first_cut


def test_hops_take_complete_chunks_and_grow(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    utterance = begun(decoder, prompt)
    utterance.push(speech(290))
    ends = []
    while utterance.next_cut():
        decode(decoder, utterance)
        ends.append(len(utterance.vocoder.mel) // 2)
    assert ends == [25, 75, 225, 275]
    utterance.finish()
    decode(decoder, utterance)
    assert utterance.done


@pytest.mark.parametrize("speed", [0.5, 2.0, 4.0])
def test_the_first_audio_is_as_long_at_any_speed(decoder: SpeechDecoder, prompt: FlowPrompt, speed: float) -> None:
    first = []
    for utterance in (begun(decoder, prompt, first_hop=20), begun(decoder, prompt, first_hop=20, speed=speed)):
        utterance.push(speech(90))
        first.append(len(decode(decoder, utterance)[0]))
    assert first[1] == pytest.approx(first[0], rel=0.3)


def test_nobody_waits_for_a_later_segment(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    utterance, tokens = begun(decoder, prompt, first_hop=None), speech(190)
    audio = at_once(decoder, utterance, tokens)
    assert utterance.hops == 1
    assert difference(audio, at_once(decoder, begun(decoder, prompt), tokens)) <= ROUNDING


def test_first_audio_does_not_wait_for_what_is_there_already(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    utterance = begun(decoder, prompt)
    utterance.push(speech(130))
    utterance.finish()
    [first] = decode(decoder, utterance)
    assert 0 < len(first) < 25 * SAMPLES_PER_TOKEN
    assert utterance.next_cut()
    [rest] = decode(decoder, utterance)
    assert len(first) + len(rest) == 130 * SAMPLES_PER_TOKEN
    assert utterance.done


def test_little_more_than_a_hop_is_decoded_in_one_go(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    utterance = begun(decoder, prompt)
    utterance.push(speech(45))
    utterance.finish()
    decode(decoder, utterance)
    assert utterance.done


def test_streams_of_all_kinds_decode_together_as_alone(decoder: SpeechDecoder) -> None:
    def utterances() -> list[Utterance]:
        prompts = [decoder.prompt(voice(tokens, seed=tokens)) for tokens in (80, 0, 60, 31)]
        opened = [
            begun(decoder, prompts[0]),
            begun(decoder, prompts[1], speed=1.5, seed=3),
            begun(decoder, prompts[2], streaming=False),
            begun(decoder, prompts[3], first_hop=10),
            begun(decoder, prompts[3]),
        ]
        for index, utterance in enumerate(opened[:4]):
            utterance.push(speech(60 + 10 * index, seed=index))
            if index != 3:
                utterance.finish()
        opened[4].finish()
        return opened

    together = decode(decoder, *utterances())
    alone = [decode(decoder, utterance)[0] for utterance in utterances()]
    for one, other in zip(together, alone, strict=True):
        assert difference(one, other) <= ROUNDING
    assert [len(piece) > 0 for piece in together] == [True, True, True, True, False]


def test_a_whole_utterance_waits_for_its_end_and_may_see_all_of_it(model: ModelDirectory, prompt: FlowPrompt) -> None:
    decoder = SpeechDecoder(model, "cpu", full_attention=True)
    utterance, tokens = begun(decoder, prompt, streaming=False), speech(190)
    assert utterance.prompt is prompt  # nothing to align
    utterance.push(tokens)
    assert not utterance.next_cut()
    audio = at_once(decoder, utterance, [])
    assert len(audio) == 190 * SAMPLES_PER_TOKEN
    assert not decoder.flow_cache_bytes
    assert difference(audio, at_once(decoder, begun(decoder, prompt), tokens)) > 1000 * ROUNDING  # another mask


def test_a_whole_utterance_has_the_mask_of_streams_and_their_memory(model: ModelDirectory, prompt: FlowPrompt) -> None:
    remembers, recomputes = (SpeechDecoder(model, "cpu", flow_cache_gib=gib) for gib in (None, 0))
    expected = at_once(recomputes, begun(recomputes, prompt, streaming=False), speech(100))
    assert not remembers.flow_cache_bytes
    first, second = (at_once(remembers, begun(remembers, prompt, streaming=False), speech(100)) for _ in range(2))
    assert remembers.flow_cache_bytes
    assert difference(first, expected) <= ROUNDING
    assert np.array_equal(first, second)
    aligned = prompt.without_head(5)  # as a stream would do
    stream = at_once(remembers, begun(remembers, aligned), speech(100))
    assert difference(at_once(remembers, begun(remembers, aligned, streaming=False), speech(100)), stream) <= ROUNDING


@pytest.mark.parametrize("streaming", [True, False])
def test_no_tokens_are_no_audio(decoder: SpeechDecoder, prompt: FlowPrompt, streaming: bool) -> None:
    utterance = begun(decoder, prompt, streaming=streaming)
    utterance.finish()
    assert utterance.next_cut()
    assert decode(decoder, utterance)[0].shape == (0,)
    assert utterance.done
    assert not utterance.next_cut()


def test_finishing_late_brings_out_what_was_held_back(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    utterance = begun(decoder, prompt)
    utterance.push(speech(28))
    early = decode(decoder, utterance)[0]
    assert 0 < len(early) < 25 * SAMPLES_PER_TOKEN
    assert not utterance.done
    utterance.finish()
    assert len(early) + len(decode(decoder, utterance)[0]) == 28 * SAMPLES_PER_TOKEN
    assert utterance.done


def test_an_utterance_that_is_not_ready_has_no_cut(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    utterance = begun(decoder, prompt)
    utterance.push(speech(20))
    assert utterance.next_cut() is None
    assert (utterance.hops, utterance.done) == (0, False)
    assert decoder.decode([]) == []


@pytest.mark.parametrize("speed", [0.5, 1.25, 2.0])
def test_speed_changes_the_length_and_streams_to_the_same(
    decoder: SpeechDecoder, prompt: FlowPrompt, speed: float
) -> None:
    tokens = speech(100)
    expected = at_once(decoder, begun(decoder, prompt, speed=speed), tokens)
    assert len(expected) == 100 * SAMPLES_PER_TOKEN / speed
    assert difference(in_pieces(decoder, begun(decoder, prompt, speed=speed), tokens, 1), expected) <= ROUNDING


def test_one_token_at_the_highest_speed_is_heard(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    assert len(at_once(decoder, begun(decoder, prompt, speed=4), speech(1))) > 0


def test_same_seed_same_audio(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    first, again, other = (at_once(decoder, begun(decoder, prompt, seed=seed), speech(20)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_push_refuses_what_it_cannot_speak(decoder: SpeechDecoder, prompt: FlowPrompt) -> None:
    utterance = begun(decoder, prompt)
    for token in (6561, -1):
        with pytest.raises(ValueError, match=f"{token} is not a speech token"):
            utterance.push([5, token])
    with pytest.raises(ValueError, match="split the text"):
        utterance.push([0] * MAX_TOKENS)
    utterance.finish()
    with pytest.raises(ValueError, match="finished"):
        utterance.push([1])


@pytest.mark.parametrize("speed", [0.0, -1.0, 0.2, 4.1, float("nan")])
def test_speed_out_of_range_is_refused(decoder: SpeechDecoder, prompt: FlowPrompt, speed: float) -> None:
    with pytest.raises(ValueError, match=r"choose one between 0\.25 and 4"):
        begun(decoder, prompt, speed=speed)


@pytest.mark.parametrize("first_hop", [0, 8])
def test_a_first_hop_that_would_be_silent_is_refused(
    decoder: SpeechDecoder, prompt: FlowPrompt, first_hop: int
) -> None:
    with pytest.raises(ValueError, match=f"first_hop is {first_hop} tokens.*at least 9"):
        begun(decoder, prompt, first_hop=first_hop)


@pytest.mark.parametrize("first_hop", [9, 25])
def test_the_first_hop_is_heard(decoder: SpeechDecoder, prompt: FlowPrompt, first_hop: int) -> None:
    utterance = begun(decoder, prompt, first_hop=first_hop)
    utterance.push(speech(max(first_hop, 10) + 3))
    assert len(decode(decoder, utterance)[0]) > 0


def test_a_voice_whose_mel_does_not_fit_its_tokens_is_refused(decoder: SpeechDecoder) -> None:
    good = voice(30)
    with pytest.raises(ValueError, match="30 speech tokens"):
        decoder.prompt(Voice("", good.speech_tokens, good.mel[:-1], good.embedding, ""))
