"""The page at `/`, as somebody uses it: in a real browser, against a real server."""

import re
import subprocess
import sys
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
from server.http.measuring import BYTES_PER_SECOND
from tests.browser import asked_addresses, chromium, complaints, wait
from tests.server_process import ServerProcess, wait_until

RECORDING = Path(vllm_cosyvoice.__file__).parent / "voices/default.wav"
SENTENCE = "The morning was bright, and the river ran slowly under the old stone bridge. "
LONG = SENTENCE * 12
CLIPBOARD = ["clipboardReadWrite", "clipboardSanitizedWrite"]
TRICKY = 'It\'s "quoted", costs $HOME, has a \\ and 你好.'


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads: Path) -> Iterator[Chrome]:
    microphone = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with chromium(downloads, *microphone, f"--use-file-for-fake-audio-capture={RECORDING}") as running:
        yield running


@pytest.fixture
def page(browser: Chrome, server: ServerProcess) -> Iterator[Chrome]:
    """The page, freshly loaded; nothing in it may fail or come from elsewhere."""
    browser.get(f"{server.url}/")
    wait(browser, "document.getElementById('voice').length > 0", "the voices are listed")
    yield browser
    assert [complaint for complaint in complaints(browser) if "status of 4" not in complaint] == []
    outside = [url for url in asked_addresses(browser) if not url.startswith((server.url, "data:", "blob:"))]
    assert outside == []


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
        window.arrivals = [];
        new MutationObserver(() => arrivals.push([document.body.dataset.state, Number(document.body.dataset.bytes)]))
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
    arrivals: list[tuple[str, int]] = page.execute_script("return arrivals")
    streamed = [size for state, size in arrivals if state == "streaming" and size]
    assert streamed == sorted(streamed)
    assert streamed[0] < streamed[-1] / 4, "the first audio came long before the last"
    assert streamed[-1] == page.execute_script("return player.samples * 2")
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
    assert decoded_seconds(tmp_path / "speech.mp3") > 0.1


def test_everything_can_be_done_from_the_keyboard(page: Chrome) -> None:
    def press(*keys: str) -> None:
        ActionChains(page).send_keys(*keys).perform()

    assert page.switch_to.active_element == at(page, "text"), "one can type at once"
    press(SENTENCE)
    ActionChains(page).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    state_is(page, "streaming")
    press(Keys.ESCAPE)
    state_is(page, "stopped")
    reached = []
    for _ in range(25):
        press(Keys.TAB)
        reached.append(page.switch_to.active_element.get_attribute("id"))
    wanted = ["voice", "add-voice", "delete-voice", "speak", "play", "wave", "tab-curl", "copy", "code"]
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
    at(page, "delete-voice").click()
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
    write(page, "text", "...")
    at(page, "speak").click()
    state_is(page, "error")
    assert "nothing to speak" in at(page, "problem").text.lower()
    (tmp_path / "no.wav").write_bytes(b"no sound at all")
    at(page, "add-voice").click()
    at(page, "voice-file").send_keys(str(tmp_path / "no.wav"))
    save_voice(page, "no")
    wait(page, "!document.getElementById('voice-problem').hidden", "it is refused")
    at(page, "voice-cancel").click()
    assert "no" not in voices(page)["all"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_it_fits_a_phone(page: Chrome, server: ServerProcess, path: str) -> None:
    screen = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        page.get(f"{server.url}{path}")
        wait(page, "document.querySelectorAll('button, details').length > 3", "it is there")
        assert page.execute_script("return document.documentElement.scrollWidth") == 360
        low = page.execute_script("""
            return [...document.querySelectorAll("button, input, select")]
                .filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < 36)
                .map((element) => element.id);
        """)
        assert low == [], "a finger needs room"
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_api_is_described_without_asking_anybody_else(page: Chrome, server: ServerProcess) -> None:
    page.get(f"{server.url}/docs")
    wait(page, "document.querySelectorAll('details').length > 5", "the operations are listed")
    text = page.find_element(By.TAG_NAME, "main").text
    assert "/v1/audio/speech" in text
    assert "response_format" in text
    assert "/v1/audio/speech/stream" in text
