// What can be shown, and how it is coloured.
// Belongs here: layers, risk scores, colours, the map style. Does not belong here: the document.

// Risk scores 0 to 10 of a risk to potential structures (RPS) in percent. Score 0 is no risk; the
// others begin at these breaks. Values are float32, and so are the breaks they are compared with.
const BREAKS = [0, 0.01, 0.02, 0.035, 0.06, 0.1, 0.2, 0.5, 1, 3];

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

export const CLIMATES = ["2011", "2047"];

// Property keys are the positions that the tile makers give them: one for each climate, or one
// for all climates.
const BUILDING_ROWS = [
  { label: "Risk to potential structures (RPS)", unit: "%", keys: ["0", "1"] },
  { label: "Burn probability, with spread", unit: "per year", keys: ["2", "3"] },
  { label: "Burn probability, wildland only", unit: "per year", keys: ["5", "6"] },
  { label: "Conditional risk if it burns (CRPS)", unit: "%", keys: ["4"] },
];
const REGION_ROWS = [
  { label: "Mean risk to structures (RPS)", unit: "%", keys: ["1", "2"] },
  { label: "Median risk to structures (RPS)", unit: "%", keys: ["3", "4"] },
];
const region = (id, title, one) => ({
  id,
  title,
  one,
  archive: "regions",
  source: id,
  shape: "fill",
  risk: ["1", "2"],
  rows: REGION_ROWS,
  legend: "Score of the mean risk",
  region: true,
});

export const LAYERS = [
  {
    id: "buildings",
    title: "Buildings",
    one: "Building",
    archive: "buildings",
    source: "risk",
    shape: "fill",
    risk: ["0", "1"],
    rows: BUILDING_ROWS,
    legend: "Risk score of buildings",
  },
  {
    id: "centroids",
    title: "Centroids",
    one: "Building centroid",
    archive: "building_centroids",
    source: "risk",
    shape: "circle",
    risk: ["0", "1"],
    rows: BUILDING_ROWS.slice(0, 1),
    legend: "Risk score of buildings",
  },
  region("counties", "Counties", "County"),
  region("tracts", "Tracts", "Census tract"),
  region("blocks", "Blocks", "Census block"),
  region("states", "States", "State"),
];

export function score(rps) {
  if (!Number.isFinite(rps)) return null;
  return rps === 0 ? 0 : BREAKS.filter((edge) => Math.fround(edge) <= rps).length;
}

// Label of the range of RPS that has a score.
export function scoreRange(value) {
  if (value === 0) return "0";
  if (value === 1) return `below ${BREAKS[1]}`;
  if (value === 10) return `${BREAKS[9]} and above`;
  return `${BREAKS[value - 1]} to ${BREAKS[value]}`;
}

function colour(key) {
  const value = ["get", key];
  const steps = BREAKS.slice(1).flatMap((edge, i) => [Math.fround(edge), COLOURS[i + 2]]);
  const ramp = ["step", value, COLOURS[1], ...steps];
  return ["case", ["!", ["has", key]], UNKNOWN, ["==", value, 0], COLOURS[0], ramp];
}

export function colourProperty(layer) {
  return `${layer.shape}-color`;
}

export function colourOf(layer, climate) {
  return colour(layer.risk[CLIMATES.indexOf(climate)]);
}

// Lowest zoom at which the archive has tiles of a layer, null if it has no such layer.
export function lowestZoom(layer, archives) {
  const archive = archives[layer.archive];
  const found = archive?.metadata.vector_layers.find((item) => item.id === layer.source);
  return found ? Math.max(found.minzoom, archive.header.minZoom) : null;
}

export function mapStyle(archives, shown, climate) {
  const sources = {};
  for (const [name, { header }] of Object.entries(archives)) {
    sources[name] = {
      type: "vector",
      tiles: [`archive://${name}/{z}/{x}/{y}`],
      minzoom: header.minZoom,
      maxzoom: header.maxZoom,
      bounds: header.bounds,
    };
  }
  const layers = [{ id: "ground", type: "background", paint: { "background-color": "#e6eaef" } }];
  const present = LAYERS.filter((layer) => lowestZoom(layer, archives) !== null);
  for (const layer of present) {
    const visibility = layer.id === shown ? "visible" : "none";
    layers.push(surface(layer, climate, visibility));
    if (layer.shape === "fill") layers.push(outline(layer, visibility));
  }
  // Borders lie over the areas and under nothing, so that a place is found on a map without names.
  for (const [id, source, width] of [["county", "counties", 0.6], ["state", "states", 1.4]]) {
    if (!present.some((layer) => layer.source === source)) continue;
    layers.push({
      id: `${id}-borders`,
      type: "line",
      source: "regions",
      "source-layer": source,
      paint: { "line-color": "#7b8794", "line-width": width },
    });
  }
  for (const layer of present) layers.push(mark(layer));
  return { version: 8, sources, layers };
}

function surface(layer, climate, visibility) {
  const paint = { [colourProperty(layer)]: colourOf(layer, climate) };
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
