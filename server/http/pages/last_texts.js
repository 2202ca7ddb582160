// The last texts that were spoken in this browser, to select one again with its voice.
"use strict";

const MOST_LAST_TEXTS = 10;

function usedText(text, voice) {
  rememberFirst("last texts", { text, voice }, MOST_LAST_TEXTS, (one, other) => one.text === other.text);
  showLastTexts();
}

function showLastTexts() {
  const texts = recall("last texts", []);
  $("last-texts").hidden = !texts.length;
  $("texts").replaceChildren(...texts.map(({ text, voice }) => {
    const button = element("button", { type: "button", title: text, textContent: text });
    button.onclick = () => {
      $("text").value = text;
      if (voices.some(({ id }) => id === voice)) showVoices(voice);
      changed();
      $("text").focus();
    };
    return element("li", {}, button);
  }));
}

$("forget-texts").onclick = () => {
  remember("last texts", []);
  showLastTexts();
  $("text").focus();
};
showLastTexts();
