// Rasters below everything else: one of them or none is shown.
// Belongs here: their layers, switch and legend. Does not belong here: vector tiles.

import { element } from "./panel.js";

const NONE = { id: "none", title: "None" };
const part = (id) => document.getElementById(id);

// Sources and layers of the map style, all hidden.
export function pictureStyle(pictures) {
  const sources = {};
  const layers = [];
  for (const { id, tiles, bounds, max_zoom: maxzoom } of pictures) {
    const address = new URL(tiles, location.href).href.replaceAll("%7B", "{").replaceAll("%7D", "}");
    sources[`picture-${id}`] = { type: "raster", tiles: [address], tileSize: 256, bounds, maxzoom };
    layers.push({
      id: `picture-${id}`,
      type: "raster",
      source: `picture-${id}`,
      layout: { visibility: "none" },
      paint: { "raster-resampling": "nearest", "raster-fade-duration": 0 },
    });
  }
  return { sources, layers };
}

// Offer the pictures; `first` is shown at once if there is nothing else to see.
export function offerPictures(map, pictures, switches, first) {
  if (!pictures.length) return;
  const show = (picture) => {
    for (const { id } of pictures) {
      const visibility = id === picture.id ? "visible" : "none";
      map.setLayoutProperty(`picture-${id}`, "visibility", visibility);
    }
    part("picture").hidden = picture === NONE;
    if (picture === NONE) return;
    part("picture-title").textContent = picture.title;
    part("picture-legend").replaceChildren(...picture.legend.map(entry));
  };
  const choose = (picture) => {
    show(picture);
    if (picture !== NONE && !overlaps(map.getBounds(), picture.bounds)) {
      map.fitBounds(picture.bounds, { padding: 24, animate: false });
    }
  };
  part("pictures-choice").hidden = false;
  const choices = [NONE, ...pictures];
  switches(part("pictures"), "picture", choices, first ?? NONE, choose);
  show(first ?? NONE);
}

function entry({ colour, text }) {
  const swatch = element("span", { className: "swatch", "aria-hidden": "true" });
  swatch.style.backgroundColor = colour;
  return element("li", {}, swatch, element("span", { className: "range", text }));
}

function overlaps(view, [west, south, east, north]) {
  return (
    west < view.getEast() && east > view.getWest() && south < view.getNorth() && north > view.getSouth()
  );
}
