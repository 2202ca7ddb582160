// Sends requests to the server, with the API key if there is one. The key is kept only until the tab is closed.
"use strict";

let needsKey = false;

// Returns the response, whatever its status is.
async function request(path, options = {}) {
  const key = $("key").value.trim();
  const authorization = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...authorization } });
  if (answer.status === 401) {
    needsKey = true;
    $("key-field").hidden = false;
  }
  return answer;
}

// Returns the response if its status is ok; else throws an Error with the server's message.
async function ask(path, options = {}) {
  const answer = await request(path, options);
  if (answer.ok) return answer;
  const error = (await answer.json().catch(() => ({}))).error;
  throw new Error(error?.message ?? `The server answered with status ${answer.status}.`);
}

function asJson(body) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

function onKey(act) {
  $("key").addEventListener("change", () => {
    sessionStorage.setItem("key", $("key").value.trim());
    act();
  });
}

$("key").value = sessionStorage.getItem("key") ?? "";
