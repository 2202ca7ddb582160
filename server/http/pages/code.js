// The same request as code: curl and Python.
"use strict";

const asShell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const fileName = () => `speech.${$("format").value}`;

function curlCode() {
  const json = JSON.stringify(wanted(), null, 2);
  return [
    `curl ${asShell(`${location.origin}/v1/audio/speech`)}`,
    ...(needsKey ? ['-H "Authorization: Bearer $OPENAI_API_KEY"'] : []),
    "-H 'Content-Type: application/json'",
    `-d ${asShell(json)}`,
    `--fail-with-body -o ${fileName()}`,
  ].join(" \\\n  ");
}

function pythonCode() {
  const { seed, ...fields } = wanted();
  const entries = Object.entries(fields).map(([name, value]) => `    ${name}=${JSON.stringify(value)},`);
  if (seed !== undefined) entries.push(`    extra_body={"seed": ${seed}},`);
  const key = needsKey ? "" : ', api_key="none"';  // with a key, the client takes it from OPENAI_API_KEY
  return [
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${location.origin}/v1`)}${key})`,
    "with client.audio.speech.with_streaming_response.create(",
    ...entries,
    ") as response:",
    `    response.stream_to_file("${fileName()}")`,
  ].join("\n");
}

function showCode() {
  const tab = document.querySelector("[role=tab][aria-selected=true]");
  $("code").textContent = tab.id === "tab-curl" ? curlCode() : pythonCode();
  $("code").setAttribute("aria-labelledby", tab.id);
}

function selectTab(tab) {
  for (const other of document.querySelectorAll("[role=tab]")) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
  }
  showCode();
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("code").textContent);
  } catch {  // pages over plain HTTP have no clipboard, and the user may deny it
    getSelection().selectAllChildren($("code"));
    document.execCommand("copy");
    getSelection().removeAllRanges();
  }
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
}

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.onclick = () => selectTab(tab);
  tab.onkeydown = ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const other = tab.nextElementSibling ?? tab.previousElementSibling;
    selectTab(other);
    other.focus();
  };
}
$("copy").onclick = copy;
