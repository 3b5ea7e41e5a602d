// The map page: opens the archives, draws them, and answers clicks and switches.
// Belongs here: what happens when. Does not belong here: colours and layers, the document, archives.

import {
  colourOf,
  colourProperty,
  lowestZoom,
  makeLayers,
  mapStyle,
  setSubject,
  subject,
} from "./layers.js";
import { element, showFeature, showLegend } from "./panel.js";
import { offerPictures, pictureStyle } from "./pictures.js";
import { Archive } from "./pmtiles.js";

const CLICK_TOLERANCE = 4;
const ARCHIVE_ADDRESS = /^archive:\/\/(\w+)\/(\d+)\/(\d+)\/(\d+)$/;

const part = (id) => document.getElementById(id);
// Scripts that watch the page learn from this whether the map is at rest.
const say = (state) => {
  document.documentElement.dataset.map = state;
};

async function start() {
  say("busy");
  const settings = await (await fetch("config.json")).json();
  setSubject(settings.subject);
  describe(settings);
  const opened = await Promise.all(
    Object.entries(settings.archives).map(async ([name, url]) => [
      name,
      await new Archive(url).open(),
    ]),
  );
  const archives = Object.fromEntries(opened);
  const present = makeLayers().filter((layer) => lowestZoom(layer, archives) !== null);
  const { pictures } = settings;
  if (!present.length && !pictures.length) throw new Error("the archives hold no known layer");
  const view = { layer: present[0], name: subject.views[0], chosen: null };
  const map = draw(settings, present, archives, view);
  await map.once("style.load");
  map.on("dataloading", () => say("busy"));
  map.on("movestart", () => say("busy"));
  map.on("idle", () => say("idle"));
  offerPictures(map, pictures, switches, present.length ? null : pictures.at(-1));
  for (const id of ["views-choice", "layers-choice", "details", "score"]) {
    part(id).hidden = !present.length;
  }
  if (present.length) explore(map, present, archives, view);
}

function explore(map, present, archives, view) {
  const refresh = () => {
    part("legend-title").textContent = view.layer.legend;
    const lowest = lowestZoom(view.layer, archives);
    part("hint").hidden = map.getZoom() >= lowest;
    part("hint").textContent = `Zoom in to see ${view.layer.title.toLowerCase()}`;
    if (view.chosen) {
      const { feature, position } = view.chosen;
      showFeature(part("details"), view.layer, feature, view.name, position);
    }
  };
  const choose = (feature, position) => {
    const filter = ["==", ["id"], feature ? feature.id : -1];
    map.setFilter(`${view.layer.id}-chosen`, filter);
    view.chosen = feature && { feature, position };
    if (!feature) part("details").replaceChildren(part("invitation").content.cloneNode(true));
    refresh();
  };
  switches(part("layers"), "layer", present, view.layer, (layer) => {
    say("busy");
    choose(null);
    for (const id of [view.layer.id, `${view.layer.id}-outline`]) {
      if (map.getLayer(id)) map.setLayoutProperty(id, "visibility", "none");
    }
    view.layer = layer;
    for (const id of [layer.id, `${layer.id}-outline`]) {
      if (map.getLayer(id)) map.setLayoutProperty(id, "visibility", "visible");
    }
    map.setPaintProperty(layer.id, colourProperty(layer), colourOf(layer, view.name));
    refresh();
  });
  const views = subject.views.map((name) => ({ id: name, title: name }));
  switches(part("views"), "view", views, views[0], ({ id }) => {
    say("busy");
    view.name = id;
    map.setPaintProperty(view.layer.id, colourProperty(view.layer), colourOf(view.layer, id));
    refresh();
  });
  const pick = (point) => {
    const [x, y] = [point.x, point.y];
    const near = [[x - CLICK_TOLERANCE, y - CLICK_TOLERANCE], [x + CLICK_TOLERANCE, y + CLICK_TOLERANCE]];
    const layers = { layers: [view.layer.id] };
    const [feature] = [
      ...map.queryRenderedFeatures([x, y], layers),
      ...map.queryRenderedFeatures(near, layers),
    ];
    choose(feature ?? null, map.unproject(point));
    if (feature) part("details").scrollIntoView({ block: "nearest" });
  };
  map.on("click", (event) => pick(event.point));
  map.getCanvas().addEventListener("keydown", (event) => {
    if (event.key === "Enter") pick(map.project(map.getCenter()));
    if (event.key === "Escape") choose(null);
  });
  map.on("mousemove", (event) => {
    const found = map.queryRenderedFeatures(event.point, { layers: [view.layer.id] });
    map.getCanvas().classList.toggle("over-feature", found.length > 0);
  });
  map.on("zoomend", refresh);
  choose(null);
}

function describe(settings) {
  document.title = settings.title;
  part("title").textContent = settings.title;
  part("views-title").textContent = subject.views_title;
  part("quantity").textContent = subject.quantity;
  const release = settings.version ? `version ${settings.version}` : "unversioned";
  part("release").textContent = `${settings.environment} · ${release}`;
  part("notice").textContent = settings.notice;
  part("notice").hidden = !settings.notice;
  part("attribution").replaceChildren(
    ...settings.attribution.map((line) => element("li", { text: line })),
  );
  showLegend(part("legend"));
}

function draw(settings, layers, archives, view) {
  maplibregl.addProtocol("archive", async ({ url }, { signal }) => {
    const [, name, z, x, y] = url.match(ARCHIVE_ADDRESS);
    const data = await archives[name].tile(Number(z), Number(x), Number(y), signal);
    return { data: data ?? new ArrayBuffer(0) };
  });
  const map = new maplibregl.Map({
    container: "map",
    style: mapStyle(layers, archives, view.layer?.id, view.name, pictureStyle(settings.pictures)),
    bounds: view.layer
      ? archives[view.layer.archive].header.bounds
      : settings.pictures.at(-1).bounds,
    fitBoundsOptions: { padding: 24, maxZoom: 16 },
    hash: "view",
    maxZoom: 20,
    dragRotate: false,
    pitchWithRotate: false,
    touchPitch: false,
    renderWorldCopies: false,
    attributionControl: false,
    locale: { "Map.Title": `Map: ${settings.title}` },
  });
  map.touchZoomRotate.disableRotation();
  map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
  map.addControl(new maplibregl.ScaleControl({ unit: "metric" }), "bottom-left");
  map.on("error", ({ error }) => complain(error));
  return map;
}

function switches(place, name, choices, checked, onChange) {
  place.replaceChildren(
    ...choices.map((choice) => {
      const input = element("input", { type: "radio", name, value: choice.id });
      input.checked = choice === checked;
      input.addEventListener("change", () => onChange(choice));
      return element("label", {}, input, element("span", { text: choice.title }));
    }),
  );
}

function complain(error) {
  part("problem").textContent = `The map cannot be shown completely: ${error.message.replace(/\.$/, "")}.`;
  part("problem").hidden = false;
  say("failed");
  // An error that a worker hands over prints without its message.
  console.error(error.message, error);
}

start().catch(complain);
