// The API reference, rendered from /openapi.json.
"use strict";

const code = (text) => element("code", { textContent: text });

function table(headings, rows) {
  const line = (cells, tag) => element("tr", {}, ...cells.map((cell) => element(tag, {}, ...[cell].flat())));
  return element("div", { className: "scroll" }, element("table", {}, line(headings, "th"), ...rows.map((row) => line(row, "td"))));
}

function describe(api) {
  const resolve = (schema) => schema?.$ref ? schema.$ref.split("/").slice(1).reduce((place, name) => place[name], api) : schema ?? {};

  function typeOf(given) {
    const schema = resolve(given);
    if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(", ");
    if ("const" in schema) return JSON.stringify(schema.const);
    if (schema.contentMediaType || schema.format === "binary") return "file";
    const limits = [
      ["minimum", "≥"], ["maximum", "≤"], ["minLength", "at least", "characters"], ["maxLength", "up to", "characters"],
    ].filter(([key]) => key in schema).map(([key, word, unit = ""]) => `${word} ${schema[key]} ${unit}`.trim());
    return [schema.type ?? schema.title ?? "any", ...limits].join(", ");
  }

  const defaultOf = (schema) => schema.default === undefined || schema.default === null ? "" : JSON.stringify(schema.default);

  function operation(path, method, about) {
    const parts = rendered(about.description ?? "");
    const parameters = about.parameters ?? [];
    if (parameters.length) {
      const rows = parameters.map(({ name, in: place, schema }) => [code(name), place, typeOf(schema)]);
      parts.push(element("h2", { textContent: "Parameters" }), table(["Name", "In", "Type"], rows));
    }
    const [[kind, content] = []] = Object.entries(about.requestBody?.content ?? {});
    const body = resolve(content?.schema), properties = Object.entries(body.properties ?? {});
    if (kind) {
      const rows = properties.map(([name, field]) => [
        code(name), typeOf(field), body.required?.includes(name) ? "required" : defaultOf(field), renderedLine(field.description ?? resolve(field).description ?? ""),
      ]);
      parts.push(element("h2", { textContent: `Body: ${kind}` }), table(["Field", "Type", "Default", ""], rows));
    }
    const answers = Object.entries(about.responses).map(([status, { description }]) => [status, description]);
    parts.push(element("h2", { textContent: "Answers" }), table(["Status", ""], answers));
    const takesJson = kind === "application/json";
    const formFields = takesJson ? [] : properties.map(([name, schema]) => ({ name, in: "form", required: body.required?.includes(name) ?? false, schema }));
    parts.push(element("h2", { textContent: "Try it" }), tryForm(method.toUpperCase(), path, [...parameters, ...formFields], takesJson));
    const title = [element("span", { className: "method", textContent: method.toUpperCase() }), code(path)];
    return element("details", { id: about.operationId }, element("summary", {}, ...title), ...parts);
  }

  function webSocket(path, { description, client, server }) {
    const messages = (from, all) => all.flatMap((given) => {
      const { title, format, description, properties = {}, required = [] } = resolve(given);
      const rows = Object.entries(properties).map(([name, field]) => [
        code(name), typeOf(field), required.includes(name) ? "always" : defaultOf(field), renderedLine(field.description ?? resolve(field).description ?? ""),
      ]);
      const heading = element("h2", { textContent: `From the ${from}: ${properties.type?.const ?? title ?? format}` });
      return [heading, ...rendered(description ?? ""), ...(rows.length ? [table(["Field", "Type", "Default", ""], rows)] : [])];
    });
    const title = [element("span", { className: "method", textContent: "WS" }), code(path)];
    return element("details", { id: path }, element("summary", {}, ...title), ...rendered(description), ...messages("client", client), ...messages("server", server));
  }

  $("about").replaceChildren(...rendered(api.info.description));
  const all = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, about]) => operation(path, method, about)));
  const webSockets = Object.entries(api["x-websockets"]).map(([path, about]) => webSocket(path, about));
  $("operations").replaceWith(...all, ...webSockets);
  const named = $(decodeURIComponent(location.hash.slice(1))) ?? all[0];
  named.open = true;
}

async function load() {
  try {
    describe(await (await ask("/openapi.json")).json());
  } catch (error) {
    $("operations").textContent = error.message;
  }
}

onKey(() => { if ($("operations")) load(); });
load();
