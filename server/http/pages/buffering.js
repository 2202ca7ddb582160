// How much audio to buffer before playback, so that it does not run dry.
"use strict";

const ONE_BURST = 50;               // milliseconds: pieces within this time were generated together
const SLOWER = 1.1;                 // how much slower the rest may be generated
const CHARACTERS_A_SECOND = 12;     // of slow speech: if speech is longer than expected, playback pauses
const SYLLABLE_SIGNS_A_SECOND = 4;  // Chinese, Japanese and Korean characters

function expectedSeconds(text, speed) {
  const signs = (text.match(/[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}]/gu) ?? []).length;
  return (signs / SYLLABLE_SIGNS_A_SECOND + ([...text].length - signs) / CHARACTERS_A_SECOND) / speed;
}

class Arrivals {
  #expected;
  #started = performance.now();
  #bursts = [];    // { at: milliseconds, seconds: of audio }

  constructor(expected) {
    this.#expected = expected;
  }

  take(seconds) {
    const now = performance.now(), last = this.#bursts.at(-1);
    if (last && now - last.at < ONE_BURST) last.seconds += seconds;
    else this.#bursts.push({ at: now, seconds });
  }

  // Seconds of audio generated per second. A single burst gives too low a rate.
  get #rate() {
    const [first] = this.#bursts, last = this.#bursts.at(-1), made = this.#made;
    const overall = made / (last.at - this.#started);
    const sinceFirst = last === first ? 0 : (made - first.seconds) / (last.at - first.at);
    return Math.max(overall, sinceFirst) * 1000;
  }

  get #made() {
    return this.#bursts.reduce((sum, { seconds }) => sum + seconds, 0);
  }

  // Seconds of audio to buffer so that playback lasts while the rest is generated, plus one burst.
  get needed() {
    const burst = Math.max(...this.#bursts.map(({ seconds }) => seconds));
    const remaining = Math.max(this.#expected - this.#made, burst);
    return remaining * Math.max(0, SLOWER / this.#rate - 1) + burst;
  }
}
