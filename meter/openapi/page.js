// The page at /docs: lists the calls of openapi.json by tag and sends them.
// Every text goes into the page as text, never as markup; bodies are shown digit by digit as they came.
"use strict";

let openapi;

/** An element with properties and children; strings become text. */
function make(tag, properties = {}, ...children) {
  const { aria = {}, ...own } = properties;
  const element = Object.assign(document.createElement(tag), own);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** What a "$ref" stands for. */
function resolve(value) {
  while (value.$ref) {
    value = value.$ref.slice(2).split("/").reduce((at, name) => at[name], openapi);
  }
  return value;
}

/** JSON text with line breaks; its numbers stay as they are written, which parsing would not do. */
function indented(text) {
  const newLine = (depth) => "\n" + "  ".repeat(depth);
  let out = "", depth = 0, opened = false;
  for (const token of text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? []) {
    if (token === "}" || token === "]") {
      depth -= 1;
      out += (opened ? "" : newLine(depth)) + token;
      opened = false;
      continue;
    }
    if (opened) out += newLine(depth);
    opened = token === "{" || token === "[";
    if (opened) depth += 1;
    out += token === ":" ? ": " : token;
    if (token === ",") out += newLine(depth);
  }
  return out;
}

function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One parameter: its element, and its value for the request. */
function field(call, parameter) {
  const { schema } = parameter;
  const id = `${call}-${parameter.name}`;
  const initial = parameter.example ?? "";
  const input = schema.enum
    ? make("select", { id }, ...schema.enum.map((value) => make("option", { value, selected: value === schema.default }, value)))
    : make("input", {
        id,
        value: initial,
        required: parameter.required === true,
        placeholder: String(schema.default ?? schema.const ?? ""),
        autocomplete: "off",
        spellcheck: false,
      });
  const label = make("label", { htmlFor: id }, `${parameter.name} `);
  if (!parameter.required) label.append(make("em", {}, "optional"));
  const box = make("div", { title: parameter.description ?? "" }, label);
  if (parameter.name === "Idempotency-Key") {
    const renew = make("button", { type: "button" }, "New");
    renew.addEventListener("click", () => { input.value = randomKey(); });
    box.append(make("div", { className: "with-button" }, input, renew));
  } else {
    box.append(input);
  }
  return { parameter, box, read: () => input.value.trim() };
}

/** What a filled form asks for: method, address and fetch's options. */
function request(method, path, fields, body) {
  const query = new URLSearchParams();
  const headers = {};
  for (const { parameter, read } of fields) {
    const value = read();
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value && parameter.in === "query") query.set(parameter.name, value);
    else if (value && parameter.in === "header") headers[parameter.name] = value;
  }
  if (body) headers["Content-Type"] = "application/json";
  const search = query.size ? `?${query}` : "";
  return {
    url: new URL(`.${path}${search}`, document.baseURI),
    options: { method: method.toUpperCase(), headers, body: body || undefined, cache: "no-store" },
  };
}

function curl({ url, options }) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = [`curl -X ${options.method} ${quoted(url.href)}`];
  for (const [name, value] of Object.entries(options.headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (options.body) parts.push(`-d ${quoted(options.body)}`);
  return parts.join(" \\\n  ");
}

async function send(asked, status, shown) {
  const started = performance.now();
  try {
    const answer = await fetch(asked.url, asked.options);
    const text = await answer.text();
    const took = Math.round(performance.now() - started);
    const notes = ["idempotency-replayed", "retry-after", "allow", "x-reservation-id", "x-credits-remaining"]
      .filter((name) => answer.headers.has(name))
      .map((name) => ` · ${name}: ${answer.headers.get(name)}`);
    const isJson = /json/.test(answer.headers.get("content-type") ?? "");
    status.className = `status ${answer.ok ? "good" : "bad"}`;
    status.textContent = `${answer.status} ${answer.statusText} · ${took} ms${notes.join("")}`;
    shown.textContent = isJson ? indented(text) : text;
    shown.hidden = !text;
  } catch (error) {
    status.className = "status bad";
    status.textContent = `No answer: ${error.message}`;
    shown.hidden = true;
  }
}

function answers(responses) {
  const list = make("dl", { className: "answers" });
  for (const [code, response] of Object.entries(responses)) {
    const explained = make("dd", {}, response.description);
    const example = Object.values(response.content ?? {})[0]?.example;
    if (example) explained.append(make("pre", { tabIndex: 0 }, JSON.stringify(example, null, 2)));
    list.append(make("dt", {}, code), explained);
  }
  return make("details", { className: "more" }, make("summary", {}, "Answers"), list);
}

function form(method, path, call) {
  const fields = (call.parameters ?? []).map((parameter) => field(call.operationId, resolve(parameter)));
  fields.sort((a, b) => Number(b.parameter.required ?? false) - Number(a.parameter.required ?? false));
  const content = call.requestBody?.content["application/json"];
  const id = `${call.operationId}-body`;
  const text = content ? JSON.stringify(content.example ?? {}, null, 2) : "";
  const body = make("textarea", { id, value: text, rows: text.split("\n").length, spellcheck: false });
  const status = make("p", { className: "status", aria: { role: "status" } });
  const shown = make("pre", { hidden: true, tabIndex: 0, aria: { role: "region", "aria-label": "Body of the answer" } });
  const command = make("pre", { tabIndex: 0 });
  const button = make("button", { type: "submit" }, "Send");
  const asForm = make("form", {});
  const asked = () => request(method, path, fields, content ? body.value.trim() : "");
  const refresh = () => { command.textContent = curl(asked()); };

  if (fields.length) asForm.append(make("div", { className: "fields" }, ...fields.map(({ box }) => box)));
  if (content) {
    asForm.append(make("div", { className: "body" }, make("label", { htmlFor: id }, "Body ", make("em", {}, "JSON")), body));
  }
  asForm.append(button, status, shown);
  asForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    await send(asked(), status, shown);
    button.disabled = false;
  });
  body.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) asForm.requestSubmit();
  });
  const asCurl = make("details", { className: "more" }, make("summary", {}, "As a curl command"), command);
  asCurl.addEventListener("toggle", refresh);
  asForm.addEventListener("input", refresh);
  asForm.addEventListener("click", refresh);
  return make("div", { className: "inside" }, asForm, asCurl, answers(call.responses));
}

function entry(method, path, call) {
  const details = make(
    "details",
    { className: "call", id: call.operationId },
    make(
      "summary",
      {},
      make("span", { className: `method ${method}` }, method.toUpperCase()),
      make("code", {}, ...path.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")])),
      make("span", { className: "what" }, call.summary),
    ),
  );
  // Forms are many: each is made when it is first looked at.
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(form(method, path, call));
  });
  return details;
}

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named instanceof HTMLDetailsElement) {
    named.open = true;
    named.scrollIntoView();
  }
}

async function start() {
  const about = document.getElementById("about");
  try {
    openapi = await (await fetch("openapi.json")).json();
  } catch (error) {
    about.textContent = `openapi.json could not be read: ${error.message}`;
    return;
  }
  about.textContent = openapi.info.summary;
  document.getElementById("version").textContent = openapi.info.version;
  for (const tag of openapi.tags) {
    const calls = [];
    for (const [path, methods] of Object.entries(openapi.paths)) {
      for (const [method, call] of Object.entries(methods)) {
        if (call.tags.includes(tag.name)) calls.push(entry(method, path, call));
      }
    }
    const id = `tag-${tag.name.replaceAll(" ", "-")}`;
    document.getElementById("groups").append(make("li", {}, make("a", { href: `#${id}` }, tag.name)));
    document.getElementById("calls").append(
      make("section", {}, make("h2", { id }, tag.name), make("p", {}, tag.description), ...calls),
    );
  }
  openNamed();
  addEventListener("hashchange", openNamed);
}

start();
