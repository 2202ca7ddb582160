// Streams speech from the server to the player.
"use strict";

const stillness = matchMedia("(prefers-reduced-motion: reduce)");
const player = new Player();
let modelId = "tts-1";
let speaking = null;    // AbortController of the current request
let arrivals = null;    // Arrivals of that request
let lastSpoken = null;  // body of the last request, with its seed

// Returns the body of the request that the form describes.
function wanted() {
  const fields = { model: modelId, input: $("text").value, voice: $("voice").value, response_format: $("format").value };
  if ($("instructions").value.trim()) fields.instructions = $("instructions").value.trim();
  if ($("speed").value !== "1") fields.speed = Number($("speed").value);
  if ($("seed").value !== "") fields.seed = Number($("seed").value);
  return fields;
}

// Returns an error message if the text is too long, else null.
function tooLong() {
  const excess = [...$("text").value].length - facts.longestText;
  return excess > 0 ? `This server accepts at most ${facts.longestText} characters. Shorten the text by ${excess}.` : null;
}

async function speak() {
  if (!$("speak-form").reportValidity()) return;
  if (tooLong()) {
    $("text").focus();
    return;
  }
  stop();
  sample.pause();
  const current = speaking = new AbortController();
  const body = { ...wanted(), seed: $("seed").value === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number($("seed").value) };
  usedText(body.input, body.voice);
  usedVoice(body.voice);
  show("problem", null);
  show("download-problem", null);
  for (const id of ["first-audio", "duration", "factor", "gaps"]) $(id).textContent = "–";
  state("waiting", "Waiting for the first audio…");
  leadToPlayer();
  await player.begin();
  lastSpoken = body;
  const started = performance.now();
  arrivals = new Arrivals(expectedSeconds(body.input, body.speed ?? 1));
  try {
    const options = asJson({ ...body, response_format: "pcm" });
    const answer = await ask("/v1/audio/speech", { ...options, signal: current.signal });
    await receive(answer.body.getReader(), started, current);
    if (current.signal.aborted) return;
    state("done", "Complete.");
  } catch (error) {
    if (current.signal.aborted) return;
    state("error", "Failed.");
    show("problem", error instanceof TypeError ? "The connection was lost before the speech was complete." : error);
  }
  if (!player.flowing) letFlow();  // no more audio will come
  speaking = null;
  buttons();
}

// Scrolls to the player if it is outside the window, as on a small screen.
function leadToPlayer() {
  const { top, bottom } = $("audio").getBoundingClientRect();
  if (top < 0 || bottom > innerHeight) $("audio").scrollIntoView({ behavior: stillness.matches ? "instant" : "smooth" });
}

async function receive(reader, started, current) {
  let odd = new Uint8Array(0);  // a piece may end in the middle of a sample
  for (;;) {
    const { done, value } = await reader.read();
    if (done || current.signal.aborted) return;
    const bytes = new Uint8Array(odd.length + value.length);
    bytes.set(odd);
    bytes.set(value, odd.length);
    const whole = bytes.length - bytes.length % 2;
    odd = bytes.slice(whole);
    if (!whole) continue;
    const seconds = (performance.now() - started) / 1000;
    if (!player.samples) $("first-audio").textContent = `${Math.round(seconds * 1000)} ms`;
    player.push(new Int16Array(bytes.buffer.slice(0, whole)));
    arrivals.take(whole / 2 / SAMPLE_RATE);
    playOrBuffer();
    document.body.dataset.bytes = player.samples * 2;
    $("duration").textContent = `${player.seconds.toFixed(2)} s`;
    $("factor").textContent = (seconds / player.seconds).toFixed(3);
    buttons();
  }
}

// Starts playback when enough audio is buffered.
function playOrBuffer() {
  if (player.dry) player.hold();
  if (player.flowing) return;
  const needed = arrivals.needed;
  if (player.buffered >= needed) {
    letFlow();
    state("streaming", "Streaming…");
  } else {
    $("buffer").max = needed;
    $("buffer").value = player.buffered;
    state("buffering", "Buffering: speech is generated slower than it plays.");
  }
}

function letFlow() {
  player.flow();
  $("gaps").textContent = player.gaps ? `${player.gaps.toFixed(2)} s` : "none";
}

function stop() {
  if (speaking) {
    speaking.abort();
    speaking = null;
    state("stopped", "Stopped.");
  }
  player.halt();
  buttons();
}

function state(name, text) {
  if (document.body.dataset.state === name) return;
  document.body.dataset.state = name;
  if (name === "waiting") document.body.dataset.bytes = 0;
  $("status").textContent = text;
  $("buffer").hidden = name !== "buffering";
  buttons();
}

function buttons() {
  const buffering = document.body.dataset.state === "buffering";
  $("stop").disabled = !speaking && !player.playing;
  $("play").disabled = !player.samples || buffering;
  $("play").textContent = player.playing ? "Pause" : "Play";
  $("download").disabled = !player.samples || speaking !== null;
  waveform.enabled = player.samples > 0 && speaking === null;
}

function seek(seconds) {
  player.playFrom(Math.min(Math.max(0, seconds), player.seconds));
  buttons();
}

const waveform = new Waveform(player);
waveform.onSeek(seek);
