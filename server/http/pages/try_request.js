// A form for one operation of the API: sends the request and shows the answer.
"use strict";

const EXAMPLE_BODIES = {
  "/v1/audio/speech": { model: "tts-1", voice: "default", input: "Hello from my own machine." },
  "/v1/audio/speech/batch": { voice: "default", items: [{ input: "Good morning." }, { input: "Good night." }] },
};

// `fields` are the inputs of the form; each has `name`, `in` (path, query or form), `required` and `schema`.
function tryForm(method, path, fields, takesJson) {
  const inputs = fields.map((field) => ({ field, input: inputFor(field) }));
  const json = takesJson ? element("textarea", { rows: 7, spellcheck: false, value: JSON.stringify(EXAMPLE_BODIES[path] ?? {}, null, 2) }) : null;
  const send = element("button", { className: "primary", textContent: "Send" });
  const status = element("p", { className: "hint" });
  status.setAttribute("role", "status");
  const answer = element("div", { className: "answer" });
  const labels = inputs.map(({ field, input }) => element("label", {}, field.name, input));
  const form = element("form", { className: "try" },
    ...labels, ...(json ? [element("label", {}, "Body", json)] : []), element("div", { className: "row" }, send), status, answer);
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (method === "DELETE" && !confirm(`Send DELETE ${path}?`)) return;
    send.disabled = true;
    status.textContent = "Waiting for the answer…";
    answer.replaceChildren();
    const started = performance.now();
    try {
      const response = await request(addressOf(path, inputs), { method, ...bodyOf(inputs, json) });
      const elements = await shownAnswer(response);
      status.textContent = `Status ${response.status} after ${Math.round(performance.now() - started)} ms.`;
      answer.replaceChildren(...elements);
    } catch (error) {
      status.textContent = error.message;
    } finally {
      send.disabled = false;
    }
  };
  return form;
}

function inputFor({ required, schema }) {
  if (schema.enum) {
    const choice = element("select", {}, ...schema.enum.map((value) => new Option(value, value)));
    if (schema.default) choice.value = schema.default;
    return choice;
  }
  const isFile = schema.contentMediaType || schema.anyOf?.some(({ contentMediaType }) => contentMediaType);
  return element("input", isFile ? { type: "file", required } : { type: "text", required, placeholder: schema.default ?? "" });
}

function addressOf(path, inputs) {
  const query = new URLSearchParams();
  for (const { field, input } of inputs) {
    if (field.in === "path") path = path.replace(`{${field.name}}`, encodeURIComponent(input.value));
    if (field.in === "query" && input.value) query.set(field.name, input.value);
  }
  return query.size ? `${path}?${query}` : path;
}

function bodyOf(inputs, json) {
  if (json) return { headers: { "Content-Type": "application/json" }, body: json.value };
  const filled = inputs.filter(({ field, input }) => field.in === "form" && input.value);
  if (!filled.length) return {};
  const form = new FormData();
  for (const { field, input } of filled) form.set(field.name, input.files?.[0] ?? input.value);
  return { body: form };
}

async function shownAnswer(answer) {
  const kind = answer.headers.get("content-type") ?? "";
  if (!kind.startsWith("audio/")) {
    const text = await answer.text();
    return [element("pre", { tabIndex: 0, textContent: kind.includes("json") ? JSON.stringify(JSON.parse(text), null, 2) : text })];
  }
  const address = URL.createObjectURL(await answer.blob());
  return [element("audio", { controls: true, src: address }), element("a", { href: address, download: "answer", textContent: `Save ${kind}` })];
}
