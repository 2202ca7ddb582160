// How much audio to have in hand before it is played, so that it does not run out.
"use strict";

const ONE_BURST = 50;               // milliseconds: what comes within them was made together
const SLOWER = 1.1;                 // how many times longer the rest may take than what has come
const CHARACTERS_A_SECOND = 12;     // of slow speech: a text that is longer than expected is heard with a pause
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

  // Seconds of audio made in a second. From one burst alone it looks slower than it is.
  get #rate() {
    const [first] = this.#bursts, last = this.#bursts.at(-1), made = this.#made;
    const overall = made / (last.at - this.#started);
    const sinceFirst = last === first ? 0 : (made - first.seconds) / (last.at - first.at);
    return Math.max(overall, sinceFirst) * 1000;
  }

  get #made() {
    return this.#bursts.reduce((sum, { seconds }) => sum + seconds, 0);
  }

  // Seconds of audio that last until the end, while the rest is made, and one burst more, since audio comes in bursts.
  get needed() {
    const burst = Math.max(...this.#bursts.map(({ seconds }) => seconds));
    const left = Math.max(this.#expected - this.#made, burst);
    return left * Math.max(0, SLOWER / this.#rate - 1) + burst;
  }
}
