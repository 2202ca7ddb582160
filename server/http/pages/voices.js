// The voices: a list with a search, a sample of each, and the voices that were added in this browser.
"use strict";

const MOST_LAST_VOICES = 5;
const LARGEST_LIST = 6;  // rows that a search shows

let voices = [];              // { id, name, created_at }, as listed by the server
const samples = new Map();    // voice → URL of its spoken greeting
const sample = new Audio();

const sameVoice = (one, other) => one.id === other.id && one.created_at === other.created_at;
const ownVoices = () => recall("own voices", []).filter((own) => voices.some((voice) => sameVoice(own, voice)));

async function loadVoices(chosen = $("voice").value || recall("last voices", [])[0]) {
  try {
    voices = (await (await ask("/v1/audio/voices")).json()).data;
  } catch (error) {
    show("problem", error);
    return;
  }
  const exists = (id) => voices.some((voice) => voice.id === id);
  showVoices([chosen, "default", voices[0]?.id].find(exists));
  showOwnVoices();
}

function showVoices(chosen = $("voice").value) {
  const query = $("voice-search").value.trim().toLowerCase();
  const matches = voices.filter(({ name }) => name.toLowerCase().includes(query));
  const last = recall("last voices", []).map((id) => matches.find((voice) => voice.id === id)).filter(Boolean);
  const others = matches.filter((voice) => !last.includes(voice));
  const selection = voices.filter(({ id }) => id === chosen && !matches.some((voice) => voice.id === id));
  const groups = [["Chosen", selection], ["Last used", last], ["All voices", others]].filter(([, group]) => group.length);
  $("voice").replaceChildren(...groups.map(([label, group]) =>
    element("optgroup", { label }, ...group.map(({ id, name }) => new Option(name, id)))));
  $("voice").value = chosen;
  $("voice").size = query ? Math.min(LARGEST_LIST, matches.length + selection.length + groups.length) : 1;
  $("voices-found").textContent = query ? `${matches.length} of ${voices.length} voices. Press Enter to select the first.` : "";
  showCode();
}

function takeFirstFound() {
  const option = $("voice").querySelector("optgroup:not([label=Chosen]) option");
  $("voice-search").value = "";
  showVoices(option?.value);
  $("voice").focus();
}

function usedVoice(id) {
  rememberFirst("last voices", id, MOST_LAST_VOICES, (one, other) => one === other);
  showVoices();
}

async function listen() {
  if (!sample.paused) {
    sample.pause();
    return;
  }
  show("problem", null);
  const voice = $("voice").value;
  $("listen").disabled = true;
  $("listen").textContent = "Making a sample…";
  try {
    if (!samples.has(voice)) {
      const body = { model: modelId, input: modelLanguages[0].greeting, voice, response_format: "wav", stream: false, seed: 0 };
      samples.set(voice, URL.createObjectURL(await (await ask("/v1/audio/speech", asJson(body))).blob()));
    }
    if (player.playing) await player.toggle();
    sample.src = samples.get(voice);
    await sample.play();
  } catch (error) {
    show("problem", error);
  } finally {
    $("listen").disabled = false;
    showWhetherSampleIsHeard();
  }
}

function showWhetherSampleIsHeard() {
  $("listen").textContent = sample.paused ? "Hear this voice" : "Stop the sample";
}

function showOwnVoices() {
  const own = ownVoices();
  $("your-voices").hidden = !own.length;
  $("own-voices").replaceChildren(...own.map((voice) => {
    const button = element("button", { type: "button", className: "danger", textContent: "Delete…" });
    button.setAttribute("aria-label", `Delete the voice ${voice.id}`);
    button.onclick = () => deleteVoice(voice);
    return element("li", {}, element("span", { textContent: voice.id }), button);
  }));
}

async function addedVoice(voice) {
  rememberFirst("own voices", { id: voice.id, created_at: voice.created_at }, Infinity, sameVoice);
  samples.delete(voice.id);
  await loadVoices(voice.id);
}

async function deleteVoice({ id }) {
  if (!confirm(`Delete the voice “${id}” for everybody who uses this server?`)) return;
  show("delete-problem", null);
  try {
    await ask(`/v1/audio/voices/${encodeURIComponent(id)}`, { method: "DELETE" });
    await loadVoices();
    remember("own voices", ownVoices());
    $("voice").focus();
  } catch (error) {
    show("delete-problem", error);
  }
}

sample.onplay = sample.onpause = sample.onended = showWhetherSampleIsHeard;
sample.volume = recall("volume", 1);
$("voice-search").oninput = () => showVoices();
$("voice-search").onkeydown = (event) => {
  if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
  event.preventDefault();  // Enter would submit the form
  takeFirstFound();
};
$("listen").onclick = listen;
