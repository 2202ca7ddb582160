// Live metrics of the server, from /metrics.
"use strict";

const SECONDS_BETWEEN_LOOKS = 3;
const LONGEST_RECENT = 60;  // seconds

const NOW = {
  "Requests": (series) => total(series, "requests"),
  "Being prepared": (series) => total(series, "requests_preparing"),
  "Segments waiting": (series) => Math.max(0, total(ofGenerate(series), "segments") - total(series, "segments_running")),
  "Segments generated": (series) => total(series, "segments_running"),
  "Streams decoded": (series) => total(series, "streams"),
};
const SPEECH = {
  "Speeches": (series) => total(series, "speech_seconds_count"),
  "Audio": (series) => seconds(total(series, "audio_seconds_total")),
  "First audio": (series) => pair(series, "first_audio_seconds", milliseconds),
  "Real-time factor": (series) => pair(series, "real_time_factor", (factor) => factor.toFixed(2)),
  "Playback stalls": (series) => pair(series, "underrun_seconds", milliseconds),
};
const OUTCOMES = ["ok", "invalid", "refused", "failed", "left"];

const looks = [];  // { at: milliseconds, series } of the last minute, oldest first
let paused = false;

const seconds = (value) => `${value.toFixed(1)} s`;
const milliseconds = (value) => `${Math.round(value * 1000)} ms`;
const gigabytes = (bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function pair(series, name, format) {
  const quantiles = [0.5, 0.95].map((share) => quantile(series, name, share));
  return quantiles.includes(null) ? "–" : quantiles.map(format).join(" / ");
}

const ofGenerate = (series) => series.filter(({ labels }) => labels.process.startsWith("generate"));

function showNow(series) {
  $("now").replaceChildren(...Object.entries(NOW).map(([name, of]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: of(series) }))));
}

function showTable(where, headings, rows) {
  const head = headings.map((textContent) => element("th", { textContent, scope: "col" }));
  const lines = rows.map(([name, ...cells]) =>
    element("tr", {}, element("th", { textContent: name, scope: "row" }), ...cells.map((textContent) => element("td", { textContent }))));
  $(where).replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines));
}

function showSpeech(series) {
  const recent = since(looks[0].series, series);
  showTable("speech", ["", "Last minute", "Since the start"], Object.entries(SPEECH).map(([name, of]) => [name, of(recent), of(series)]));
}

function showAnswers(series) {
  const routes = new Set(series.filter(({ name }) => name === "answers_total").map(({ labels }) => labels.route));
  const rows = [...routes].sort().map((route) => [route, ...OUTCOMES.map((outcome) => total(series, "answers_total", { route, outcome }))]);
  showTable("answers", ["", ...OUTCOMES], rows);
}

function showGpus(series) {
  const totals = series.filter(({ name }) => name === "gpu_memory_total_bytes");
  $("gpu").hidden = !totals.length;
  $("gpus").replaceChildren(...totals.map(({ labels: { process }, value: all }) => {
    const used = total(series, "gpu_memory_used_bytes", { process });
    const ours = total(series, "gpu_memory_allocated_bytes", { process });
    const text = `${process}: ${gigabytes(used)} of ${gigabytes(all)} used, ${gigabytes(ours)} by the decoder's tensors`;
    return element("label", {}, text, element("meter", { max: all, high: all * 0.95, value: used }));
  }));
}

async function look() {
  try {
    const series = parsed(await (await ask("/metrics")).text());
    looks.push({ at: Date.now(), series });
    while (looks[0].at < Date.now() - LONGEST_RECENT * 1000) looks.shift();
    showNow(series);
    showSpeech(series);
    showAnswers(series);
    showGpus(series);
    $("updated").textContent = new Date().toLocaleTimeString();
    if (!$("problem").hidden) show("problem", null);
  } catch (error) {
    show("problem", error instanceof TypeError ? "The server does not answer." : error);
  }
}

$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  if (!paused) look();
};
onKey(look);
setInterval(() => { if (!paused && !document.hidden) look(); }, SECONDS_BETWEEN_LOOKS * 1000);
look();
