// What this browser stores: the last texts and voices, the voices added here, the volume.
"use strict";

const PREFIX = "cosyvoice ";

function recall(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {  // storage is turned off
    return otherwise;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {  // storage is turned off, and the page works without it
  }
}

// Moves `value` to the front of a list of the last `most` values; `same` compares two values.
function rememberFirst(name, value, most, same) {
  remember(name, [value, ...recall(name, []).filter((other) => !same(other, value))].slice(0, most));
}
