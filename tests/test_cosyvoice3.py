"""A CosyVoice3 model through the whole server: every front end and mode, clients that leave, processes that die."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI

from tests.server_process import BODY, SLOW, ServerProcess, eventually, exactly, ready_server
from tests.stream_client import PRESET, TEXT, WORDS, calling, spaced
from tests.test_audio import tone, wav
from tests.test_server_speech import speak
from tools.random_checkpoint import TINY3, write_random_checkpoint
from vllm_cosyvoice.checkpoint import open_model
from vllm_cosyvoice.checkpoint.cosyvoice3 import COSYVOICE3, SYSTEM
from vllm_cosyvoice.checkpoint.family import END_OF_PROMPT
from vllm_cosyvoice.config import SAMPLES_PER_TOKEN
from vllm_cosyvoice.preparation import Preparation
from vllm_cosyvoice.recording import Recording
from vllm_cosyvoice.segment import Prompt
from vllm_cosyvoice.text import TextFrontEnd
from vllm_cosyvoice.vocabulary import START, TASK, text_ids

TOKENS = 40  # a second and a half: several hops
BYTES = 2 * SAMPLES_PER_TOKEN * TOKENS
SENTENCE = "The sun rose over the hills."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with every file of the release, of small sizes and random weights."""
    directory = tmp_path_factory.mktemp("models") / "tiny3"
    write_random_checkpoint(directory, TINY3, seed=0)
    return directory


@pytest.fixture(scope="module")
def preparation(model: Path) -> Preparation:
    return Preparation(open_model(model))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Of a copy whose only language model has the name of the release's second one."""
    directory = tmp_path_factory.mktemp("server3")
    (directory / "voices").mkdir()
    shutil.copytree(model, directory / "model")
    (directory / "model" / "llm.pt").rename(directory / "model" / "llm.rl.pt")
    flags = ["--llm_file", "llm.rl.pt", "--voices_dir", str(directory / "voices"), "--full_attention", "True"]
    with ready_server(directory / "model", directory / "log", *flags) as ready:
        yield ready


@pytest.fixture
async def openai(server: ServerProcess) -> AsyncOpenAI:
    return server.openai()


def test_the_family_is_told_by_its_settings(model: Path) -> None:
    assert open_model(model).family is COSYVOICE3


def test_every_prompt_begins_with_the_system_text(preparation: Preparation) -> None:
    text = preparation.tokens(SENTENCE)
    voice = preparation.voice("slt")

    def prompt(instruction: str, transcript: str = "", *, speech: bool = False) -> list[int]:
        ahead = text_ids(preparation.tokens(instruction + END_OF_PROMPT + transcript))
        return [START, *ahead, *text_ids(text), TASK, *(voice.speech_tokens.tolist() if speech else [])]

    [zero_shot] = preparation.segments(SENTENCE, voice)
    [cross_lingual] = preparation.segments(SENTENCE, voice, cross_lingual=True)
    [instruct] = preparation.segments(SENTENCE, voice, "Speak softly.")
    [preset] = preparation.segments(SENTENCE, preparation.voice(PRESET))
    assert zero_shot.prompt == prompt(SYSTEM, voice.transcript, speech=True)
    assert cross_lingual.prompt == preset.prompt == prompt(SYSTEM)
    assert instruct.prompt == prompt(f"{SYSTEM} Speak softly.")
    assert {segment.min_tokens for segment in (zero_shot, cross_lingual, instruct)} == {2 * len(text)}


def test_a_system_text_that_the_caller_writes_is_not_doubled(preparation: Preparation) -> None:
    def prompt(transcript: str, instructions: str | None = None) -> list[int]:
        voice = preparation.voice(Recording(wav(tone(2)), transcript))
        [segment] = preparation.segments(SENTENCE, voice, instructions)
        return segment.prompt

    assert prompt(f"{SYSTEM}{END_OF_PROMPT}It is a tone.") == prompt("It is a tone.")
    assert prompt("", f"{SYSTEM} Speak softly.{END_OF_PROMPT}") == prompt("", "Speak softly.")


def test_the_instruction_of_arriving_text_comes_before_the_interleave(preparation: Preparation) -> None:
    voice = preparation.voice("slt")
    system, transcript = preparation.tokens(SYSTEM + END_OF_PROMPT), preparation.tokens(voice.transcript)
    assert preparation.prompt(voice) == Prompt(system, transcript, voice.speech_tokens.tolist())
    assert preparation.prompt(voice, cross_lingual=True) == Prompt(system, [], [])


@pytest.mark.parametrize(
    ("text", "spoken", "phones"),
    [
        ("A room of [M][IH1][N][AH0][S] 5 degrees.", "A room of [M][IH1][N][AH0][S] five degrees.", 5),
        ("报道[j][ǐ]予好评，共3个。", "报道[j][ǐ]予好评，共三个。", 2),
    ],
)
def test_pronunciations_reach_the_tokenizer_whole(model: Path, text: str, spoken: str, phones: int) -> None:
    opened = open_model(model)
    front_end = TextFrontEnd(opened.tokenizer, special_tokens=opened.family.special_tokens)
    assert front_end.segments(text) == [spoken]
    first = front_end.tokens("<|endofsystem|>")[0]  # the tokens behind it are phones and parts of pinyin
    assert sum(token > first for token in front_end.tokens(spoken)) == phones


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
async def test_speech_is_streamed_whole(openai: AsyncOpenAI, stream_format: str) -> None:
    answer = await speak(openai, TOKENS, stream_format=stream_format)
    assert len(answer.content) > BYTES if stream_format == "sse" else len(answer.content) == BYTES


@pytest.mark.parametrize("fields", [{"instructions": "Speak softly."}, {"voice": "slt"}, {"voice": PRESET}])
async def test_every_mode_speaks(openai: AsyncOpenAI, fields: dict[str, object]) -> None:
    answer = await speak(openai, TOKENS, **fields)
    assert len(answer.content) == BYTES


async def test_whole_speech_with_full_attention_remembers_nothing(server: ServerProcess, openai: AsyncOpenAI) -> None:
    for whole in (True, False):
        before = server.numbers()["flow_cache_bytes"]
        await speak(openai, TOKENS, voice="awb", extra_body={"stream": not whole})
        assert (server.numbers()["flow_cache_bytes"] == before) is whole


async def test_text_that_arrives_is_spoken(server: ServerProcess) -> None:
    async with calling(server, **exactly(TOKENS)) as client:
        await client.text(*spaced(WORDS))
        await client.say("input.done")
        heard = await client.utterance()
    assert len(heard.pcm) == BYTES, TEXT


async def test_lighttts_requests_speak_also_with_a_system_text(server: ServerProcess) -> None:
    form = {"tts_text": SENTENCE, "prompt_text": f"{SYSTEM}{END_OF_PROMPT}It is a tone.", "stream": "True"}
    async with server.client() as client:
        answer = await client.post("/inference_zero_shot", data=form, files={"prompt_wav": wav(tone(2))})
    assert answer.status_code == 200, answer.text
    assert answer.content


async def test_lighttts_clients_find_the_models_name(server: ServerProcess) -> None:
    async with server.client() as client:
        assert (await client.get("/query_tts_model")).json() == {"tts_models": ["CosyVoice3"]}
        for name, status in (("CosyVoice3", 200), ("cosyvoice", 200), ("CosyVoice2", 400)):
            form = {"tts_text": SENTENCE, "prompt_text": "It is a tone.", "tts_model_name": name}
            answer = await client.post("/inference_zero_shot", data=form, files={"prompt_wav": wav(tone(2))})
            assert answer.status_code == status, answer.text


async def test_a_recording_is_spoken_by_another_voice(server: ServerProcess) -> None:
    async with server.client() as client:
        form = {"voice": PRESET, "response_format": "pcm"}
        answer = await client.post("/v1/audio/voice-conversion", data=form, files={"audio": wav(tone(2))})
    assert answer.status_code == 200, answer.text
    assert len(answer.content) == 2 * 24_000 * 2


async def test_a_client_that_leaves_leaves_nothing(server: ServerProcess) -> None:
    async with server.speaking(2000):
        pass
    await eventually(server.idle, "nothing is left")


@pytest.mark.parametrize("stage", ["generate-0", "decode-0"])
async def test_it_speaks_again_after_a_process_was_killed(server: ServerProcess, stage: str) -> None:
    server.named(stage).kill()

    def speaks() -> bool:
        try:
            answer = httpx.post(f"{server.url}/v1/audio/speech", json=BODY | exactly(TOKENS), timeout=SLOW)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and len(answer.content) == BYTES

    await eventually(speaks, "it speaks again")
