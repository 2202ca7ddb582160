// The waveform with the playback position.
"use strict";

const SHORTEST_SHOWN = 4;  // seconds
const darkness = matchMedia("(prefers-color-scheme: dark)");

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
}

class Waveform {
  #player;
  #canvas = $("wave");
  #drawn = "";

  constructor(player) {
    this.#player = player;
  }

  draw() {
    const player = this.#player, canvas = this.#canvas, scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    const view = [width, scale, player.position, player.samples, darkness.matches].join();
    if (view === this.#drawn) return;
    this.#drawn = view;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const style = getComputedStyle(document.documentElement), pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const bars = Math.floor(width / 4), shown = Math.max(player.peaks.length, SHORTEST_SHOWN * SAMPLE_RATE / PEAK_SAMPLES);
    const played = player.position * SAMPLE_RATE / PEAK_SAMPLES / shown * bars;
    for (let bar = 0; bar < bars; bar++) {
      const peaks = player.peaks.slice(Math.floor(bar * shown / bars), Math.ceil((bar + 1) * shown / bars));
      const barHeight = Math.max(2, Math.min(1, Math.max(0, ...peaks) * 1.1) * (height - 16));
      pen.fillStyle = style.getPropertyValue(bar < played ? "--accent" : "--unplayed");
      pen.globalAlpha = peaks.length ? 1 : .45;
      pen.beginPath();
      pen.roundRect(bar * 4 + .5, (height - barHeight) / 2, 3, barHeight, 1.5);
      pen.fill();
    }
    canvas.setAttribute("aria-valuemax", player.seconds.toFixed(1));
    canvas.setAttribute("aria-valuenow", player.position.toFixed(1));
    canvas.setAttribute("aria-valuetext", `${player.position.toFixed(1)} of ${player.seconds.toFixed(1)} seconds`);
    $("time").textContent = `${clock(player.position)} / ${clock(player.seconds)}`;
  }

  get enabled() { return this.#canvas.getAttribute("aria-disabled") === "false"; }
  set enabled(enabled) { this.#canvas.setAttribute("aria-disabled", String(!enabled)); }

  // Calls `seek` with the position in seconds that the user selects with the pointer or the keys.
  onSeek(seek) {
    this.#canvas.onclick = (event) => {
      if (this.enabled) seek(event.offsetX / this.#canvas.clientWidth * Math.max(this.#player.seconds, SHORTEST_SHOWN));
    };
    this.#canvas.onkeydown = (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity };
      if (!this.enabled || !(event.key in steps)) return;
      event.preventDefault();
      seek(this.#player.position + steps[event.key]);
    };
  }
}
