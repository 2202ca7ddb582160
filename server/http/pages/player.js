// Keeps PCM as it arrives, and plays it without gaps after `flow` is called.
"use strict";

const SAMPLE_RATE = 24000;
const PEAK_SAMPLES = 240;        // one peak of the waveform per 10 ms
const HEAD_START = 0.03;         // seconds of delay of the first piece, so that its start is not cut off

class Player {
  #context = null;
  #gain = null;
  #volume = 1;
  #sources = new Set();
  #end = 0;            // when the scheduled audio ends, on the context's clock
  #scheduled = 0;      // samples
  #waiting = [];       // Float32Array: audio that is not scheduled yet
  #rest = [];          // samples of the next, incomplete peak
  flowing = false;     // new audio is scheduled at once
  pieces = [];         // Int16Array
  peaks = [];          // 0 … 1
  samples = 0;
  gaps = 0;            // seconds

  get seconds() { return this.samples / SAMPLE_RATE; }
  get buffered() { return (this.samples - this.#scheduled) / SAMPLE_RATE; }
  get #left() { return this.#context ? Math.max(0, this.#end - this.#context.currentTime) : 0; }
  get position() { return Math.max(0, this.#scheduled / SAMPLE_RATE - this.#left); }
  get playing() { return this.#context?.state === "running" && this.#left > 0; }
  get dry() { return this.flowing && this.#left === 0; }

  set volume(volume) {
    this.#volume = volume;
    if (this.#gain) this.#gain.gain.value = volume;
  }

  async begin() {      // call it in a click or a key press: browsers allow audio only then
    Object.assign(this, { pieces: [], peaks: [], samples: 0, gaps: 0 });
    this.#rest = [];
    this.halt();
    if (!this.#context) {
      this.#context = new AudioContext({ sampleRate: SAMPLE_RATE });
      this.#gain = this.#context.createGain();
      this.#gain.gain.value = this.#volume;
      this.#gain.connect(this.#context.destination);
    }
    await this.#context.resume();
  }

  push(pcm) {
    const sound = Float32Array.from(pcm, (sample) => sample / 32768);
    this.pieces.push(pcm);
    this.samples += pcm.length;
    this.#waiting.push(sound);
    for (const sample of sound) {
      this.#rest.push(Math.abs(sample));
      if (this.#rest.length === PEAK_SAMPLES) {
        this.peaks.push(Math.max(...this.#rest));
        this.#rest = [];
      }
    }
    if (this.dry) this.hold();
    if (this.flowing) this.flow();
  }

  hold() { this.flowing = false; }

  flow() {
    const now = this.#context.currentTime;
    if (this.#end < now) {
      if (this.#scheduled) this.gaps += now - this.#end;
      this.#end = now + (this.#scheduled ? 0 : HEAD_START);
    }
    for (const sound of this.#waiting) this.#schedule(sound);
    this.#waiting = [];
    this.#scheduled = this.samples;
    this.flowing = true;
  }

  playFrom(seconds) {
    this.halt();
    const all = new Float32Array(this.samples);
    let offset = 0;
    for (const piece of this.pieces) for (const sample of piece) all[offset++] = sample / 32768;
    this.#end = this.#context.currentTime;
    this.#schedule(all.subarray(Math.floor(seconds * SAMPLE_RATE)));
    return this.#context.resume();
  }

  toggle() {
    if (this.position >= this.seconds) return this.playFrom(0);
    return this.#context.state === "running" ? this.#context.suspend() : this.#context.resume();
  }

  halt() {
    for (const source of this.#sources) source.stop();
    this.#sources.clear();
    this.#end = 0;
    this.#waiting = [];
    this.#scheduled = this.samples;
    this.flowing = false;
  }

  #schedule(sound) {
    if (!sound.length) return;
    const buffer = this.#context.createBuffer(1, sound.length, SAMPLE_RATE);
    buffer.copyToChannel(sound, 0);
    const source = this.#context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.#gain);
    source.onended = () => this.#sources.delete(source);
    source.start(this.#end);
    this.#sources.add(source);
    this.#end += buffer.duration;
  }
}
