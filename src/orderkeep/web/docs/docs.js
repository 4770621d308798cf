"use strict";

// Shows /openapi.json and lets a reader try each call. All text goes in as text, never as markup.

const METHODS = ["get", "post", "put", "patch", "delete"];
// Deep enough for every body there is; a schema that names itself ends here.
const DEPTH_MAX = 8;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function resolved(document_, schema) {
  let found = schema ?? {};
  while (found.$ref) {
    found = found.$ref.split("/").slice(1).reduce((part, name) => part[name], document_);
  }
  return found;
}

function withoutNull(schema) {
  const options = (schema.oneOf ?? schema.anyOf ?? []).filter((one) => one.type !== "null");
  return options.length > 0 ? options[0] : schema;
}

function isRequired(schema, name) {
  return (schema.required ?? []).includes(name);
}

// A schema as a reader takes it in: like the JSON it describes, with types for values.
function outline(document_, schema, depth = 0) {
  const given = resolved(document_, schema);
  const plain = withoutNull(given);
  if (plain !== given) {
    const isNullable = (given.oneOf ?? given.anyOf).some((one) => one.type === "null");
    // An optional member that is null by default is simply left out.
    const mark = isNullable && given.default === undefined ? " | null" : "";
    return outline(document_, plain, depth) + mark;
  }
  const found = given;
  const indent = "  ".repeat(depth + 1);
  if (depth > DEPTH_MAX) {
    return "…";
  }
  if (found.properties) {
    const lines = Object.entries(found.properties).map(([name, member]) => {
      const mark = isRequired(found, name) ? "" : "?";
      return `${indent}${name}${mark}: ${outline(document_, member, depth + 1)}`;
    });
    return `{\n${lines.join(",\n")}\n${"  ".repeat(depth)}}`;
  }
  const items = found.items ?? (found.prefixItems ?? [])[0];
  if (items) {
    return `[${outline(document_, items, depth)}, …]`;
  }
  if (found.enum) {
    return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  }
  const limits = ["minimum", "maximum", "minLength", "maxLength", "pattern", "format"]
    .filter((name) => found[name] !== undefined)
    .map((name) => `${name} ${found[name]}`);
  const type = Array.isArray(found.type) ? found.type.join(" | ") : found.type ?? "any";
  return limits.length > 0 ? `${type} (${limits.join(", ")})` : type;
}

function example(document_, schema, depth = 0) {
  const found = resolved(document_, withoutNull(resolved(document_, schema)));
  if (depth > DEPTH_MAX) {
    return null;
  }
  if ((found.examples ?? []).length > 0) {
    return found.examples[0];
  }
  if (found.default !== undefined && found.default !== null) {
    return found.default;
  }
  if (found.enum) {
    return found.enum[0];
  }
  if (found.properties) {
    const members = Object.entries(found.properties).filter(([name]) => isRequired(found, name));
    return Object.fromEntries(
      members.map(([name, member]) => [name, example(document_, member, depth + 1)]),
    );
  }
  if (found.type === "array") {
    return found.items ? [example(document_, found.items, depth + 1)] : [];
  }
  const count = Math.max(found.minimum ?? 1, 1);
  return { integer: count, number: 1, boolean: true, object: {} }[found.type] ?? "string";
}

function jsonSchema(content) {
  return (content ?? {})["application/json"]?.schema;
}

function accessOf(operation) {
  const [requirement] = operation.security ?? [];
  if (!requirement) {
    return "public";
  }
  const scopes = requirement.bearer ?? [];
  return scopes.length > 0 ? `scope ${scopes.join(" or ")}` : "any token";
}

function tryForm(document_, path, method, operation) {
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const input = element("input", { placeholder: outline(document_, parameter.schema) });
    return { parameter, input };
  });
  const bodySchema = jsonSchema(operation.requestBody?.content);
  const hasBody = Boolean(operation.requestBody);
  const body = element("textarea", { rows: "8", spellcheck: "false", "aria-label": "Body" });
  if (bodySchema) {
    body.value = JSON.stringify(example(document_, bodySchema), null, 2);
  }
  const button = element("button", { type: "button" }, "Send");
  const answer = element("pre", { hidden: "" });
  button.addEventListener("click", async () => {
    const filled = inputs.filter(({ input }) => input.value !== "");
    let url = path;
    const query = new URLSearchParams();
    const headers = {};
    for (const { parameter, input } of filled) {
      if (parameter.in === "path") {
        url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      } else if (parameter.in === "query") {
        query.append(parameter.name, input.value);
      } else if (parameter.in === "header") {
        headers[parameter.name] = input.value;
      }
    }
    const token = document.getElementById("token").value.trim();
    if (token && accessOf(operation) !== "public") {
      headers.Authorization = `Bearer ${token}`;
    }
    if (hasBody) {
      headers["Content-Type"] = "application/json";
    }
    const search = query.size > 0 ? `?${query}` : "";
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const response = await fetch(url + search, {
        method: method.toUpperCase(),
        headers,
        body: hasBody ? body.value : undefined,
      });
      answer.textContent = await shownAnswer(response);
    } catch (error) {
      answer.textContent = `No answer: ${error.message}`;
    }
  });
  const fields = inputs.map(({ parameter, input }) =>
    element("label", {}, `${parameter.name} (${parameter.in}) `, input),
  );
  return element("div", {}, element("h4", {}, "Try it"), ...fields, ...(hasBody ? [body] : []), button, answer);
}

async function shownAnswer(response) {
  const text = await response.text();
  const kept = ["etag", "location", "retry-after", "idempotent-replayed", "www-authenticate"];
  const headers = kept
    .filter((name) => response.headers.has(name))
    .map((name) => `${name}: ${response.headers.get(name)}`);
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not JSON: shown as it came.
  }
  return [`${response.status} ${response.statusText}`, ...headers, "", shown].join("\n");
}

function parameterTable(document_, parameters) {
  const rows = parameters.map((parameter) =>
    element(
      "tr",
      {},
      element("td", {}, element("code", {}, parameter.name)),
      element("td", {}, parameter.in),
      element("td", {}, element("code", {}, outline(document_, parameter.schema))),
      element("td", {}, parameter.description ?? ""),
    ),
  );
  return element("table", {}, element("tbody", {}, ...rows));
}

function operationPanel(document_, path, method, operation) {
  const panel = element(
    "details",
    { id: operation.operationId },
    element(
      "summary",
      {},
      element("span", { class: `method ${method}` }, method.toUpperCase()),
      element("span", { class: "path" }, path),
      element("span", { class: "access" }, accessOf(operation)),
      ` — ${operation.summary ?? ""}`,
    ),
  );
  // Filled when it is first opened: a hundred closed panels cost nothing.
  panel.addEventListener("toggle", () => {
    if (!panel.open || panel.childElementCount > 1) {
      return;
    }
    if (operation.description) {
      panel.append(element("p", {}, operation.description));
    }
    if (operation.parameters) {
      panel.append(element("h4", {}, "Parameters"), parameterTable(document_, operation.parameters));
    }
    const bodySchema = jsonSchema(operation.requestBody?.content);
    if (bodySchema) {
      panel.append(element("h4", {}, "Body"), element("pre", {}, outline(document_, bodySchema)));
    }
    for (const [status, given] of Object.entries(operation.responses)) {
      const schema = jsonSchema(resolved(document_, given).content);
      if (schema) {
        panel.append(
          element("h4", {}, `Answer ${status}`),
          element("pre", {}, outline(document_, schema)),
        );
      }
    }
    const errors = Object.keys(operation.responses).filter((status) => status >= "400" && status < "6");
    if (errors.length > 0) {
      panel.append(element("p", {}, `Errors: ${errors.join(", ")}, as problem documents.`));
    }
    panel.append(tryForm(document_, path, method, operation));
  });
  return panel;
}

function show(document_) {
  document.getElementById("title").textContent = `${document_.info.title} API ${document_.info.version}`;
  document.getElementById("description").textContent = document_.info.description ?? "";
  const groups = new Map();
  for (const [path, item] of Object.entries(document_.paths)) {
    for (const method of METHODS.filter((name) => item[name])) {
      const tag = (item[method].tags ?? ["Other"])[0];
      groups.set(tag, [...(groups.get(tag) ?? []), operationPanel(document_, path, method, item[method])]);
    }
  }
  const main = document.getElementById("operations");
  main.replaceChildren();
  for (const [tag, panels] of [...groups].sort(([one], [other]) => one.localeCompare(other))) {
    const id = `tag-${tag.replaceAll(" ", "-")}`;
    document.getElementById("tags").append(element("a", { href: `#${id}` }, tag));
    main.append(element("h2", { id }, tag), ...panels);
  }
  const rows = Object.entries(document_["x-problem-codes"] ?? {}).map(([code, kind]) =>
    element("tr", {}, element("td", {}, `${kind.status}`), element("td", {}, element("code", {}, code)), element("td", {}, kind.title)),
  );
  document.querySelector("#codes tbody").append(...rows);
}

async function start() {
  try {
    const response = await fetch("/openapi.json");
    show(await response.json());
  } catch (error) {
    document.getElementById("operations").textContent = `/openapi.json cannot be read: ${error.message}`;
  }
}

start();
