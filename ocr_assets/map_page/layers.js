// What can be shown, and how it is coloured.
// Belongs here: layers, scores, colours, the map style. Does not belong here: the document.

// What the page is about, as its settings say: which properties are scored, in which views, and at
// which breaks scores begin. Score 0 is none. Values are float32, and so are the breaks that they
// are compared with.
export const subject = {};

export function setSubject(given) {
  Object.assign(subject, given);
}

export function capitalised(text) {
  return text[0].toUpperCase() + text.slice(1);
}

// Grey for none, then a ramp that only grows darker, so it reads without seeing colour.
export const COLOURS = [
  "#a9b2bd",
  "#f4e67e",
  "#f9cb35",
  "#fba60b",
  "#f57f14",
  "#e4572e",
  "#c43c4e",
  "#9b2964",
  "#6f196e",
  "#430a68",
  "#170b3b",
];

const UNKNOWN = "#ffffff";

const region = (id, title, one) => ({
  id,
  title,
  one,
  archive: "regions",
  source: id,
  shape: "fill",
  scored: subject.region_keys,
  rows: subject.region_rows,
  legend: `Score of the mean ${subject.noun}`,
  region: true,
});

export const makeLayers = () => [
  {
    id: "buildings",
    title: "Buildings",
    one: "Building",
    archive: "buildings",
    source: "risk",
    shape: "fill",
    scored: subject.building_keys,
    rows: subject.building_rows,
    legend: `${capitalised(subject.noun)} score of buildings`,
  },
  {
    id: "centroids",
    title: "Centroids",
    one: "Building centroid",
    archive: "building_centroids",
    source: "risk",
    shape: "circle",
    // Centroids have the scored properties only.
    scored: subject.centroid_rows[0].keys,
    rows: subject.centroid_rows,
    legend: `${capitalised(subject.noun)} score of buildings`,
  },
  region("counties", "Counties", "County"),
  region("tracts", "Tracts", "Census tract"),
  region("blocks", "Blocks", "Census block"),
  region("states", "States", "State"),
];

export function score(value) {
  if (!Number.isFinite(value)) return null;
  return value === 0 ? 0 : subject.breaks.filter((edge) => Math.fround(edge) <= value).length;
}

// Label of the range of values that has a score.
export function scoreRange(value) {
  if (value === 0) return "0";
  const { breaks } = subject;
  if (value === 1) return `below ${breaks[1]}`;
  if (value === 10) return `${breaks[9]} and above`;
  return `${breaks[value - 1]} to ${breaks[value]}`;
}

function colour(key) {
  const value = ["get", key];
  const steps = subject.breaks.slice(1).flatMap((edge, i) => [Math.fround(edge), COLOURS[i + 2]]);
  const ramp = ["step", value, COLOURS[1], ...steps];
  return ["case", ["!", ["has", key]], UNKNOWN, ["==", value, 0], COLOURS[0], ramp];
}

export function colourProperty(layer) {
  return `${layer.shape}-color`;
}

export function colourOf(layer, view) {
  return colour(layer.scored[subject.views.indexOf(view)]);
}

// Lowest zoom at which the archive has tiles of a layer, null if it has no such layer.
export function lowestZoom(layer, archives) {
  const archive = archives[layer.archive];
  const found = archive?.metadata.vector_layers.find((item) => item.id === layer.source);
  return found ? Math.max(found.minzoom, archive.header.minZoom) : null;
}

export function mapStyle(layers, archives, shown, view, pictures) {
  const sources = { ...pictures.sources };
  for (const [name, { header }] of Object.entries(archives)) {
    sources[name] = {
      type: "vector",
      tiles: [`archive://${name}/{z}/{x}/{y}`],
      minzoom: header.minZoom,
      maxzoom: header.maxZoom,
      bounds: header.bounds,
    };
  }
  const ground = { id: "ground", type: "background", paint: { "background-color": "#e6eaef" } };
  const drawn = [ground, ...pictures.layers];
  for (const layer of layers) {
    const visibility = layer.id === shown ? "visible" : "none";
    drawn.push(surface(layer, view, visibility));
    if (layer.shape === "fill") drawn.push(outline(layer, visibility));
  }
  // Borders lie over the areas and under nothing, so that a place is found on a map without names.
  for (const [id, source, width] of [["county", "counties", 0.6], ["state", "states", 1.4]]) {
    if (!layers.some((layer) => layer.source === source)) continue;
    drawn.push({
      id: `${id}-borders`,
      type: "line",
      source: "regions",
      "source-layer": source,
      paint: { "line-color": "#7b8794", "line-width": width },
    });
  }
  for (const layer of layers) drawn.push(mark(layer));
  return { version: 8, sources, layers: drawn };
}

function surface(layer, view, visibility) {
  const paint = { [colourProperty(layer)]: colourOf(layer, view) };
  if (layer.shape === "circle") {
    paint["circle-radius"] = ["interpolate", ["linear"], ["zoom"], 4, 1.5, 10, 2.5, 14, 5, 18, 9];
    paint["circle-stroke-color"] = "#3b4754";
    paint["circle-stroke-width"] = ["interpolate", ["linear"], ["zoom"], 12, 0, 15, 0.8];
  }
  return {
    id: layer.id,
    type: layer.shape,
    source: layer.archive,
    "source-layer": layer.source,
    layout: { visibility },
    paint,
  };
}

// Tells neighbours of one colour apart; seen from afar it would only dim the colours.
function outline(layer, visibility) {
  const width = ["interpolate", ["linear"], ["zoom"], 14, 0, 16, 0.6, 18, 1];
  return {
    id: `${layer.id}-outline`,
    type: "line",
    source: layer.archive,
    "source-layer": layer.source,
    layout: { visibility },
    paint: { "line-color": "#3b4754", "line-width": layer.region ? 0.4 : width },
  };
}

// The ring around the chosen feature; its filter matches nothing until one is chosen.
function mark(layer) {
  const base = {
    id: `${layer.id}-chosen`,
    source: layer.archive,
    "source-layer": layer.source,
    filter: ["==", ["id"], -1],
  };
  if (layer.shape === "fill") {
    return { ...base, type: "line", paint: { "line-color": "#0057d9", "line-width": 3 } };
  }
  return {
    ...base,
    type: "circle",
    paint: {
      "circle-radius": 9,
      "circle-opacity": 0,
      "circle-stroke-color": "#0057d9",
      "circle-stroke-width": 3,
    },
  };
}
