"""The page at `/`, as somebody uses it: in a real browser, against a real server."""

import contextlib
import re
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

import vllm_cosyvoice
from server.observe.delivery import BYTES_PER_SECOND
from server.observe.metrics import Histogram
from tests.browser import asked_addresses, chromium, complaints, wait
from tests.server_process import ServerProcess, wait_until
from tests.stand_in_server import StandIn, stand_in_server

RECORDING = Path(vllm_cosyvoice.__file__).parent / "demo_voices/default.wav"
SENTENCE = "The morning was bright, and the river ran slowly under the old stone bridge. "
LONG = SENTENCE * 12
CLIPBOARD = ["clipboardReadWrite", "clipboardSanitizedWrite"]
LONGEST_TEXT = 100  # characters that the stand-in takes
VOICES_ARE_LISTED = "document.getElementById('voice').length > 0"
PHONE = {"width": 375, "height": 740, "deviceScaleFactor": 2, "mobile": True}
TRICKY = 'It\'s "quoted", costs $HOME, has a \\ and 你好.'


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Chrome]:
    microphone = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with chromium(downloads, *microphone, f"--use-file-for-fake-audio-capture={RECORDING}") as running:
        yield running


@contextlib.contextmanager
def opened(browser: Chrome, url: str) -> Iterator[Chrome]:
    """The page, as somebody sees it who was never there; nothing in it may fail or come from elsewhere."""
    browser.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "local_storage"})
    browser.get(f"{url}/")
    wait(browser, VOICES_ARE_LISTED, "the voices are listed")
    yield browser
    assert [complaint for complaint in complaints(browser) if "status of 4" not in complaint] == []
    outside = [asked for asked in asked_addresses(browser) if not asked.startswith((url, "data:", "blob:"))]
    assert outside == []


@pytest.fixture
def page(browser: Chrome, server: ServerProcess) -> Iterator[Chrome]:
    with opened(browser, server.url) as page:
        yield page


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with stand_in_server("--max_input_chars", str(LONGEST_TEXT)) as running:
        yield running


@pytest.fixture
def quick_page(browser: Chrome, stand_in: StandIn) -> Iterator[Chrome]:
    """The page of the stand-in, which takes itself for the demo server."""
    with opened(browser, stand_in.url) as page:
        yield page


def at(page: Chrome, id: str) -> WebElement:
    return page.find_element(By.ID, id)


def write(page: Chrome, id: str, text: str) -> None:
    at(page, id).clear()
    at(page, id).send_keys(text)


def state_is(page: Chrome, state: str) -> None:
    wait(page, f"document.body.dataset.state === '{state}'", f"the page says {state}")


def speak(page: Chrome, text: str) -> None:
    """Have `text` spoken to its end."""
    write(page, "text", text)
    at(page, "speak").click()
    state_is(page, "done")


def decoded_seconds(file: Path) -> float:
    with av.open(str(file)) as container:
        return float(sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0)))


def test_audio_is_heard_and_seen_while_it_is_still_being_made(page: Chrome, server: ServerProcess) -> None:
    page.execute_script("""
        window.sizes = [];
        new MutationObserver(() => sizes.push([document.body.dataset.state, Number(document.body.dataset.bytes)]))
            .observe(document.body, { attributes: true, attributeFilter: ["data-bytes"] });
    """)
    write(page, "text", LONG)
    at(page, "speak").click()
    state_is(page, "streaming")
    wait(page, "player.playing && player.position > 0.05", "the sound runs")
    assert page.execute_script("return document.body.dataset.state") == "streaming"
    assert sum(server.numbers()["requests"].values()) == 1, "the server is still at it"
    assert at(page, "download").get_attribute("disabled"), "there is nothing whole to save yet"
    state_is(page, "done")
    sizes: list[tuple[str, int]] = page.execute_script("return sizes")
    received = [size for state, size in sizes if state in ("buffering", "streaming") and size]
    assert received == sorted(received)
    assert received[0] < received[-1] / 4, "the first audio came long before the last"
    assert received[-1] == page.execute_script("return player.samples * 2")
    at(page, "stop").click()
    wait(page, "!player.playing", "silence")


def test_the_figures_and_the_waveform_are_those_of_the_speech(page: Chrome) -> None:
    empty = page.execute_script("return document.getElementById('wave').toDataURL()")
    speak(page, SENTENCE)
    received = int(page.execute_script("return document.body.dataset.bytes"))
    seconds = received / BYTES_PER_SECOND
    assert at(page, "duration").text == f"{seconds:.2f} s"
    assert re.fullmatch(r"\d+ ms", at(page, "first-audio").text)
    assert re.fullmatch(r"\d+\.\d{3}", at(page, "factor").text)
    assert re.fullmatch(r"none|\d+\.\d\d s", at(page, "gaps").text)
    assert len(page.execute_script("return player.peaks")) == received * 100 // BYTES_PER_SECOND
    assert max(page.execute_script("return player.peaks")) > 0
    wait(page, "!player.playing && player.position === player.seconds", "it has been played to its end")
    wait(page, "document.getElementById('play').textContent === 'Play'", "it can be played again")
    assert page.execute_script("return document.getElementById('wave').toDataURL()") != empty
    at(page, "wave").send_keys(Keys.HOME)
    wait(page, "player.playing && player.position < player.seconds", "it plays from the beginning")
    at(page, "play").click()
    wait(page, "!player.playing", "it pauses")


def test_what_is_saved_is_a_whole_wav_file(page: Chrome, downloads: Path) -> None:
    speak(page, SENTENCE)
    at(page, "download").click()
    file = downloads / "speech.wav"
    wait_until(file.exists, "the file is saved")
    with wave.open(str(file)) as saved:
        assert (saved.getnchannels(), saved.getsampwidth(), saved.getframerate()) == (1, 2, 24000)
        assert saved.getnframes() == page.execute_script("return player.samples") > 0
    file.unlink()


def test_the_same_seed_gives_the_same_speech(page: Chrome) -> None:
    page.find_element(By.TAG_NAME, "summary").click()
    write(page, "seed", "7")
    lengths = []
    for _ in range(2):
        speak(page, SENTENCE)
        lengths.append(page.execute_script("return player.samples"))
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize("language", ["curl", "python"])
def test_the_copied_command_speaks_whatever_the_text_is(page: Chrome, tmp_path: Path, language: str) -> None:
    origin = page.execute_script("return location.origin")
    page.execute_cdp_cmd("Browser.grantPermissions", {"origin": origin, "permissions": CLIPBOARD})
    write(page, "text", TRICKY)
    at(page, f"tab-{language}").click()
    at(page, "copy").click()
    wait(page, "document.getElementById('copy').textContent === 'Copied'", "it is copied")
    code: str = page.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert code == page.execute_script("return document.getElementById('code').textContent")
    command = ["bash", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    assert decoded_seconds(tmp_path / "speech.wav") > 0.1


def test_everything_can_be_done_from_the_keyboard(page: Chrome) -> None:
    def press(*keys: str) -> None:
        ActionChains(page).send_keys(*keys).perform()

    assert page.switch_to.active_element == at(page, "text"), "one can type at once"
    press(SENTENCE)
    ActionChains(page).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    wait(page, "player.samples > 0", "audio comes")
    press(Keys.ESCAPE)
    state_is(page, "stopped")
    reached = []
    for _ in range(40):
        press(Keys.TAB)
        reached.append(page.switch_to.active_element.get_attribute("id"))
    wanted = ["voice", "voice-search", "listen", "add-voice", "instructions", "speak"]
    wanted += ["wave", "play", "volume", "format", "tab-curl", "copy", "code"]
    assert [id for id in wanted if id not in reached] == []
    at(page, "add-voice").send_keys(Keys.ENTER)
    wait(page, "document.getElementById('voice-dialog').open", "the dialog opens")
    press(Keys.ESCAPE)
    wait(page, "!document.getElementById('voice-dialog').open", "the dialog closes")
    unnamed = page.execute_script(
        "return [...document.querySelectorAll('input, select, textarea')].filter((e) => !e.labels.length).length"
    )
    assert unnamed == 0


def voices(page: Chrome) -> dict[str, Any]:
    choice = Select(at(page, "voice"))
    return {"all": [option.text for option in choice.options], "chosen": choice.first_selected_option.text}


def save_voice(page: Chrome, name: str) -> None:
    write(page, "voice-name", name)
    write(page, "voice-transcript", RECORDING.with_suffix(".txt").read_text(encoding="utf-8").strip())
    at(page, "voice-save").click()


def test_a_voice_is_uploaded_speaks_and_is_deleted(page: Chrome) -> None:
    at(page, "add-voice").click()
    at(page, "voice-file").send_keys(str(RECORDING))
    save_voice(page, "uploaded")
    wait(page, "!document.getElementById('voice-dialog').open", "it is saved")
    assert voices(page)["chosen"] == "uploaded"
    speak(page, SENTENCE)
    at(page, "your-voices").find_element(By.TAG_NAME, "summary").click()
    at(page, "own-voices").find_element(By.CSS_SELECTOR, "[aria-label='Delete the voice uploaded']").click()
    page.switch_to.alert.accept()
    wait(page, "document.getElementById('voice').value !== 'uploaded'", "it is gone")
    assert "uploaded" not in voices(page)["all"]


def test_a_voice_is_recorded(page: Chrome) -> None:
    at(page, "add-voice").click()
    at(page, "record").click()
    wait(page, "document.getElementById('record').textContent === 'Stop (3 s)'", "it records")
    at(page, "record").click()
    wait(page, "!document.getElementById('preview').hidden", "one can listen to it")
    save_voice(page, "recorded")
    wait(page, "!document.getElementById('voice-dialog').open", "it is saved")
    assert voices(page)["chosen"] == "recorded"
    speak(page, SENTENCE)


def test_what_goes_wrong_is_said_where_it_went_wrong(page: Chrome, tmp_path: Path) -> None:
    write(page, "text", "Wait. [pause:99s]")
    at(page, "speak").click()
    state_is(page, "error")
    assert "too long" in at(page, "problem").text.lower()
    (tmp_path / "no.wav").write_bytes(b"no sound at all")
    at(page, "add-voice").click()
    at(page, "voice-file").send_keys(str(tmp_path / "no.wav"))
    save_voice(page, "no")
    wait(page, "!document.getElementById('voice-problem').hidden", "it is refused")
    at(page, "voice-cancel").click()
    assert "no" not in voices(page)["all"]


def reload(page: Chrome) -> None:
    page.refresh()
    wait(page, VOICES_ARE_LISTED, "the voices are listed")


def record_states(page: Chrome) -> None:
    """Keep in `states` what the page says it does."""
    page.execute_script("""
        window.states = [];
        new MutationObserver(() => states.push(document.body.dataset.state))
            .observe(document.body, { attributes: true, attributeFilter: ["data-state"] });
    """)


def buttons_of(page: Chrome, id: str) -> list[WebElement]:
    buttons: list[WebElement] = at(page, id).find_elements(By.TAG_NAME, "button")
    return buttons


# Sound


def test_speech_that_is_made_slower_than_it_plays_is_buffered_and_has_no_gap(
    quick_page: Chrome, stand_in: StandIn
) -> None:
    stand_in.pieces = [(0.4, 0.25)] * 24
    write(quick_page, "text", "a" * 72)  # as long as the 6 s that are spoken
    at(quick_page, "speak").click()
    state_is(quick_page, "buffering")
    assert "Buffering" in at(quick_page, "status").text
    assert at(quick_page, "buffer").is_displayed()
    assert at(quick_page, "play").get_attribute("disabled"), "it starts by itself"
    state_is(quick_page, "streaming")
    wait(quick_page, "player.playing", "the sound runs")
    assert quick_page.execute_script("return speaking !== null && player.seconds < 6"), "it did not wait for all of it"
    assert not at(quick_page, "buffer").is_displayed()
    state_is(quick_page, "done")
    wait(quick_page, "!player.playing", "it is heard to its end")
    assert at(quick_page, "gaps").text == "none"
    assert at(quick_page, "time").text == "0:06 / 0:06"


def test_when_speech_stalls_it_buffers_again_and_goes_on(quick_page: Chrome, stand_in: StandIn) -> None:
    stand_in.pieces = [(0.1, 0.5), (0.1, 0.5), (4.0, 0.5), (0.2, 0.5)]
    record_states(quick_page)
    speak(quick_page, "a" * 24)
    states = quick_page.execute_script("return states")
    assert states[:3] == ["waiting", "streaming", "buffering"]
    wait(quick_page, "player.playing", "what came late is heard")
    assert float(at(quick_page, "gaps").text.removesuffix(" s")) > 1
    wait(quick_page, "!player.playing && player.position === player.seconds", "it is heard to its end")


def test_the_volume_is_that_of_the_sound_and_is_kept(quick_page: Chrome) -> None:
    quick_page.execute_script("""
        const create = AudioContext.prototype.createGain;
        AudioContext.prototype.createGain = function () { return window.gain = create.call(this); };
    """)
    speak(quick_page, "Hello.")
    assert quick_page.execute_script("return gain.gain.value") == 1
    at(quick_page, "volume").send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert quick_page.execute_script("return gain.gain.value") == pytest.approx(0.05)
    reload(quick_page)
    assert at(quick_page, "volume").get_attribute("value") == "0.05"


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "pcm"])
def test_what_was_heard_is_saved_in_the_format_that_is_chosen(page: Chrome, downloads: Path, audio_format: str) -> None:
    speak(page, SENTENCE)
    Select(at(page, "format")).select_by_value(audio_format)
    assert at(page, "format-hint").is_displayed() == (audio_format != "pcm")
    at(page, "download").click()
    file = downloads / f"speech.{audio_format}"
    wait_until(file.exists, "the file is saved")
    samples = page.execute_script("return player.samples")
    if audio_format == "pcm":
        assert file.stat().st_size == samples * 2
    else:
        assert decoded_seconds(file) == pytest.approx(samples / 24000, abs=0.2)
    file.unlink()


# The form


def test_it_speaks_the_languages_of_its_model(page: Chrome) -> None:
    assert [button.text for button in buttons_of(page, "examples")] == ["English", "中文", "日本語", "한국어"]
    assert not at(page, "instructions-hint").is_displayed()
    buttons_of(page, "examples")[1].click()
    assert "清晨" in str(at(page, "text").get_attribute("value"))


def test_the_demo_model_speaks_english_and_knows_no_instructions(quick_page: Chrome, stand_in: StandIn) -> None:
    assert [button.text for button in buttons_of(quick_page, "examples")] == ["English"]
    assert "not trained on instructions" in at(quick_page, "instructions-hint").text
    next(button for button in buttons_of(quick_page, "presets") if button.text == "Slow").click()
    speak(quick_page, "Hello.")
    assert stand_in.asked[-1]["instructions"] == "Speak slowly."


def test_a_text_above_the_limit_is_not_sent(quick_page: Chrome, stand_in: StandIn) -> None:
    write(quick_page, "text", "a" * (LONGEST_TEXT + 20))
    assert at(quick_page, "count").text == f"{LONGEST_TEXT + 20} / {LONGEST_TEXT}"
    message = f"This server accepts at most {LONGEST_TEXT} characters. Shorten the text by 20."
    assert at(quick_page, "too-long").text == message
    at(quick_page, "speak").click()
    assert quick_page.switch_to.active_element == at(quick_page, "text")
    assert quick_page.execute_script("return document.body.dataset.state") == "idle"
    at(quick_page, "text").send_keys(Keys.BACKSPACE * 20)
    assert not at(quick_page, "too-long").is_displayed()
    quick_page.execute_script("text.value = '😀'.repeat(100); changed();")
    assert at(quick_page, "count").text == f"{LONGEST_TEXT} / {LONGEST_TEXT}", "as the server counts"
    at(quick_page, "speak").click()
    state_is(quick_page, "done")
    assert [len(body["input"]) for body in stand_in.asked] == [LONGEST_TEXT]


def test_the_last_texts_can_be_taken_up_again_until_they_are_forgotten(quick_page: Chrome) -> None:
    assert not at(quick_page, "last-texts").is_displayed()
    for text, voice in (("First.", "Reader 7"), ("Second.", "default"), ("First.", "Reader 8")):
        Select(at(quick_page, "voice")).select_by_value(voice)
        speak(quick_page, text)
    quick_page.execute_script("key.value = 'secret'; key.dispatchEvent(new Event('change'));")
    reload(quick_page)
    assert voices(quick_page)["chosen"] == "Reader 8"
    assert voices(quick_page)["all"][:3] == ["Reader 8", "default", "Reader 7"]
    at(quick_page, "last-texts").find_element(By.TAG_NAME, "summary").click()
    assert [button.text for button in buttons_of(quick_page, "texts")] == ["First.", "Second."]
    buttons_of(quick_page, "texts")[1].click()
    assert at(quick_page, "text").get_attribute("value") == "Second."
    assert voices(quick_page)["chosen"] == "default"
    assert "secret" not in quick_page.execute_script("return JSON.stringify(localStorage)")
    at(quick_page, "forget-texts").click()
    reload(quick_page)
    assert not at(quick_page, "last-texts").is_displayed()


# Voices


def test_voices_are_found_by_a_part_of_their_name(quick_page: Chrome) -> None:
    assert voices(quick_page)["chosen"] == "default"
    at(quick_page, "voice-search").send_keys("READER 2")
    found = ["Reader 2", *(f"Reader {number}" for number in range(20, 30))]
    assert voices(quick_page) == {"all": ["default", *found], "chosen": "default"}, "searching alone chooses nothing"
    assert at(quick_page, "voices-found").text == "11 of 31 voices. Press Enter to select the first."
    at(quick_page, "voice-search").send_keys("5", Keys.ENTER)
    assert voices(quick_page)["chosen"] == "Reader 25"
    assert len(voices(quick_page)["all"]) == 31
    assert quick_page.execute_script("return document.body.dataset.state") == "idle", "Enter speaks nothing there"


def test_a_voice_is_heard_before_it_is_used(quick_page: Chrome, stand_in: StandIn) -> None:
    Select(at(quick_page, "voice")).select_by_value("Reader 3")
    for _ in range(2):
        at(quick_page, "listen").click()
        wait(quick_page, "!sample.paused && sample.currentTime > 0.1", "the sample is heard")
        assert at(quick_page, "listen").text == "Stop the sample"
        wait(quick_page, "sample.paused", "the sample ends")
        wait(quick_page, "document.getElementById('listen').textContent === 'Hear this voice'", "it can be heard again")
    assert [body["voice"] for body in stand_in.asked] == ["Reader 3"], "a sample is made once"
    assert not at(quick_page, "last-texts").is_displayed(), "it is no text of the user's"


def test_only_voices_that_were_added_here_can_be_deleted(quick_page: Chrome) -> None:
    own = "remember('own voices', [{ id: 'Reader 3', created_at: arguments[0] }])"
    assert not at(quick_page, "your-voices").is_displayed()
    quick_page.execute_script(own, 2)
    reload(quick_page)
    assert not at(quick_page, "your-voices").is_displayed(), "somebody else made a voice of that name"
    quick_page.execute_script(own, 1)
    reload(quick_page)
    at(quick_page, "your-voices").find_element(By.TAG_NAME, "summary").click()
    assert [row.text for row in at(quick_page, "own-voices").find_elements(By.TAG_NAME, "span")] == ["Reader 3"]


# Sizes of screen


@contextlib.contextmanager
def phone(page: Chrome, width: int) -> Iterator[None]:
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE | {"width": width})
    try:
        yield
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_speak_leads_to_the_player(quick_page: Chrome) -> None:
    place = "document.getElementById('audio').getBoundingClientRect()"
    with phone(quick_page, 375):
        reload(quick_page)
        write(quick_page, "text", "Hello.")
        wait(quick_page, f"{place}.top > innerHeight", "the player is out of sight")
        at(quick_page, "speak").click()
        wait(quick_page, f"{place}.top >= 0 && {place}.bottom <= innerHeight", "all of the player is in sight")


@pytest.mark.parametrize("width", [360, 375])
@pytest.mark.parametrize("path", ["/", "/docs", "/figures"])
def test_it_fits_a_phone(page: Chrome, server: ServerProcess, path: str, width: int) -> None:
    with phone(page, width):
        page.get(f"{server.url}{path}")
        wait(page, "document.querySelectorAll('button, details, tr').length > 3", "it is there")
        assert page.execute_script("return document.documentElement.scrollWidth") == width
        low = page.execute_script("""
            return [...document.querySelectorAll("button, input, select")]
                .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < 36)
                .map((element) => element.id);
        """)
        assert low == [], "a finger needs room"


# The other pages


def test_the_api_is_described_without_asking_anybody_else(page: Chrome, server: ServerProcess) -> None:
    page.get(f"{server.url}/docs")
    wait(page, "document.querySelectorAll('details').length > 5", "the operations are listed")
    text = page.find_element(By.TAG_NAME, "main").text
    assert "/v1/audio/speech" in text
    assert "response_format" in text
    for path, message in (("/v1/audio/speech/stream", "input.cancel"), ("/inference_zero_shot_bistream", "tts_text")):
        details = page.find_element(By.ID, path)
        page.execute_script("arguments[0].open = true", details)
        assert message in details.text
    assert "`" not in page.execute_script("return document.querySelector('main').textContent"), "it is rendered"


def tried(page: Chrome, operation: str) -> WebElement:
    """The form for the operation whose id begins so, opened."""
    details = page.find_element(By.CSS_SELECTOR, f"details[id^={operation}]")
    page.execute_script("arguments[0].open = true", details)
    return details.find_element(By.TAG_NAME, "form")


def answer_of(page: Chrome, form: WebElement) -> str:
    form.find_element(By.CSS_SELECTOR, "button.primary").click()
    status = form.find_element(By.CSS_SELECTOR, "[role=status]")
    wait_until(lambda: status.text.startswith("Status "), "it is answered")
    return f"{status.text} {form.find_element(By.CLASS_NAME, 'answer').text}"


def test_a_request_can_be_tried_where_it_is_described(page: Chrome, server: ServerProcess) -> None:
    page.get(f"{server.url}/docs")
    wait(page, "document.querySelectorAll('details').length > 5", "the operations are listed")
    speech = tried(page, "speech")
    assert answer_of(page, speech).startswith("Status 200")
    sound = speech.find_element(By.TAG_NAME, "audio")
    wait_until(lambda: float(page.execute_script("return arguments[0].duration || 0", sound)) > 0, "it can be heard")
    model = tried(page, "one_model")
    model.find_element(By.TAG_NAME, "input").send_keys("no/such")
    assert re.match(r"Status 404 .*There is no model 'no/such'", answer_of(page, model), re.DOTALL)
    convert = tried(page, "convert_voice")
    for recording in convert.find_elements(By.CSS_SELECTOR, "input[type=file]"):
        recording.send_keys(str(RECORDING))
    assert answer_of(page, convert).startswith("Status 200")


def test_the_figures_are_those_of_the_metrics_and_follow_them(quick_page: Chrome, stand_in: StandIn) -> None:
    factor = Histogram("real_time_factor", (0.5, 1.0, 2.0))
    for value in (0.75, 0.75, 0.75, 0.75):
        factor.observe(value)
    stand_in.numbers = {
        "http-0": {"requests": 3, **factor.numbers(), 'answers_total{route="/v1/audio/speech",outcome="ok"}': 4},
        "http-1": {"requests": 2, 'answers_total{route="/v1/audio/speech",outcome="failed"}': 1},
        "encode-0": {"segments": 9},
        "generate": {"segments": 7, "segments_running": 5},
        "decode-0": {
            **{"streams": 4, "gpu_memory_total_bytes": 80 * 2**30, "gpu_memory_used_bytes": 20 * 2**30},
            "gpu_memory_allocated_bytes": 2**30,
        },
    }
    quick_page.get(f"{stand_in.url}/figures")
    wait(quick_page, "document.querySelectorAll('#now div').length > 0", "the figures are there")

    now = at(quick_page, "now").text.split("\n")
    assert dict(zip(now[::2], now[1::2], strict=True)) == {
        "Requests": "5",
        "Being prepared": "0",
        "Segments waiting": "2",
        "Segments generated": "5",
        "Streams decoded": "4",
    }
    assert "Real-time factor – 0.75 / 0.97" in at(quick_page, "speech").text
    assert "/v1/audio/speech 4 0 0 1 0" in at(quick_page, "answers").text
    assert "20.0 GiB of 80.0 GiB used, 1.0 GiB" in at(quick_page, "gpus").text
    assert quick_page.find_element(By.TAG_NAME, "meter").get_attribute("value") == str(20 * 2**30)
    factor.observe(1.5)
    stand_in.numbers = {"http-0": {"requests": 8, **factor.numbers()}}
    wait(quick_page, "document.querySelector('#now dd').textContent === '8'", "they are looked at again")
    assert "Real-time factor 1.50 / 1.95 " in at(quick_page, "speech").text, "of the last minute"
    assert not at(quick_page, "gpu").is_displayed()
    at(quick_page, "pause").click()
    stand_in.numbers = {"http-0": {"requests": 9}}
    time.sleep(4)
    assert at(quick_page, "now").text.startswith("Requests\n8")


def test_the_figures_of_a_server_that_has_spoken(page: Chrome, server: ServerProcess) -> None:
    speak(page, SENTENCE)
    page.get(f"{server.url}/figures")
    wait(page, "document.querySelectorAll('#answers tr').length > 1", "the figures are there")
    figures = page.find_element(By.TAG_NAME, "main").text
    assert re.search(r"^First audio – \d+ ms / \d+ ms$", figures, re.MULTILINE)
    assert re.search(r"^/v1/audio/speech [1-9]", figures, re.MULTILINE)
