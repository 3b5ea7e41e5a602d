// The panel beside the map: legend, and values of the chosen feature.
// Belongs here: the document. Does not belong here: the map.

import { COLOURS, capitalised, score, scoreRange, subject } from "./layers.js";

const numbers = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const counts = new Intl.NumberFormat("en");

export function element(name, { text, className, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Colours come from script, as the page allows no styles inside its markup.
function swatch(value, className = "swatch") {
  const made = element("span", { className, "aria-hidden": "true" });
  made.style.backgroundColor = COLOURS[value];
  return made;
}

export function showLegend(place) {
  const items = COLOURS.map((_, value) =>
    element(
      "li",
      {},
      swatch(value),
      element("span", { className: "score", text: value }),
      element("span", { className: "range", text: scoreRange(value) }),
    ),
  );
  place.replaceChildren(...items);
}

export function showFeature(place, layer, feature, view, position) {
  const { properties } = feature;
  const chosen = subject.views.indexOf(view);
  place.replaceChildren(
    element("h2", { text: title(layer, properties) }),
    headline(layer, properties, chosen),
    values(layer, properties, chosen),
    ...(layer.region ? [histogram(properties, chosen)] : []),
    element("p", { className: "position", text: facts(layer, properties, position) }),
  );
}

function title(layer, properties) {
  const [name, short] = layer.region ? subject.name_keys.map((key) => properties[key]) : [];
  const state = short ? ` (${short})` : "";
  return name ? `${layer.one}: ${name}${state}` : layer.one;
}

function headline(layer, properties, chosen) {
  const value = score(properties[layer.scored[chosen]]);
  const { noun, views } = subject;
  if (value === null) {
    return element("p", { className: "headline", text: `No ${noun} value for ${views[chosen]}` });
  }
  const kind = layer.region ? `Mean ${noun}: score` : `${capitalised(noun)} score`;
  const badge = swatch(value, "badge");
  badge.textContent = value;
  badge.classList.toggle("on-dark", value > 4);
  return element(
    "p",
    { className: "headline" },
    badge,
    element("span", {}, element("strong", { text: `${kind} ${value} of 10` }), ` in ${views[chosen]}`),
  );
}

function values(layer, properties, chosen) {
  const table = element("table");
  const head = element("tr", {}, element("td"));
  subject.views.forEach((view, i) => {
    const className = i === chosen ? "chosen" : "";
    head.append(element("th", { scope: "col", className, text: view }));
  });
  const caption = `Values by ${subject.views_title.toLowerCase()}`;
  table.append(element("caption", { className: "hidden", text: caption }), head);
  for (const row of layer.rows) {
    const label = element(
      "th",
      { scope: "row", text: row.label },
      element("span", { className: "unit", text: ` ${row.unit}` }),
    );
    const line = element("tr", {}, label);
    row.keys.forEach((key, i) => {
      const value = properties[key];
      const text = Number.isFinite(value) ? numbers.format(value) : "no value";
      const forAll = row.keys.length === 1;
      const cell = element("td", { className: forAll || i === chosen ? "chosen" : "", text });
      if (forAll) cell.colSpan = subject.views.length;
      cell.dataset.key = key;
      line.append(cell);
    });
    table.append(line);
  }
  return table;
}

function histogram(properties, chosen) {
  const tally = JSON.parse(properties[subject.histogram_keys[chosen]] ?? "[]");
  const most = Math.max(1, ...tally);
  const bars = tally.map((count, value) => {
    const column = element("span", { className: "column" });
    if (count) {
      const bar = swatch(value, "bar");
      bar.style.height = `${Math.max(4, (100 * count) / most)}%`;
      column.append(bar);
    }
    const label = `Score ${value}: ${counts.format(count)} buildings`;
    return element(
      "li",
      { title: label },
      column,
      element("span", { className: "score", "aria-hidden": "true", text: value }),
      element("span", { className: "hidden", text: label }),
    );
  });
  return element(
    "section",
    { className: "histogram" },
    element("h3", { text: `Buildings by ${subject.noun} score, ${subject.views[chosen]}` }),
    element("ol", {}, ...bars),
  );
}

function facts(layer, properties, position) {
  if (!layer.region) {
    return `At ${degrees(position.lat, "N", "S")}, ${degrees(position.lng, "E", "W")}`;
  }
  const count = counts.format(properties[subject.count_key]);
  return `Buildings: ${count} · GEOID: ${properties[subject.code_key]}`;
}

function degrees(value, positive, negative) {
  return `${Math.abs(value).toFixed(5)}° ${value < 0 ? negative : positive}`;
}
