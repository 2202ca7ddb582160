// What this browser remembers of its user: the last texts and voices, the voices added here, the volume.
"use strict";

const PREFIX = "cosyvoice ";

function recall(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {  // the browser lets no page keep anything
    return otherwise;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {  // the page works without
  }
}

// Puts `value` at the front of a list of the last `most` that are not the `same`.
function rememberFirst(name, value, most, same) {
  remember(name, [value, ...recall(name, []).filter((other) => !same(other, value))].slice(0, most));
}
