// Reads tiles of a PMTiles version 3 archive by HTTP range requests.
// Belongs here: the archive format. Does not belong here: what the tiles show.

const HEADER_BYTES = 127;
// The root directory lies within the first 16 KiB, so that one request opens an archive.
const OPENING_BYTES = 16384;
const DEGREE = 1e7;
const COMPRESSION = { 1: null, 2: "gzip" };
// Directories of a national archive are some tens of kilobytes each.
const CACHED_DIRECTORIES = 64;
// Before a request that failed is made again.
const PAUSE_MS = 200;

class ArchiveChanged extends Error {}

export class Archive {
  constructor(url) {
    this.url = url;
    this.cache = "default";
  }

  // Header, metadata and root directory; to be awaited before tiles are asked for.
  async open() {
    this.etag = null;
    this.directories = new Map();
    const opening = await this.read(0, OPENING_BYTES);
    const view = new DataView(opening);
    const magic = new TextDecoder().decode(opening.slice(0, 7));
    if (magic !== "PMTiles" || view.getUint8(7) !== 3) {
      throw new Error(`${this.url} is not a PMTiles version 3 archive`);
    }
    const long = (at) => Number(view.getBigUint64(at, true));
    const degrees = (at) => view.getInt32(at, true) / DEGREE;
    const header = {
      rootOffset: long(8),
      rootLength: long(16),
      metadataOffset: long(24),
      metadataLength: long(32),
      leavesOffset: long(40),
      tilesOffset: long(56),
      directoryCompression: view.getUint8(97),
      tileCompression: view.getUint8(98),
      minZoom: view.getUint8(100),
      maxZoom: view.getUint8(101),
      bounds: [degrees(102), degrees(106), degrees(110), degrees(114)],
    };
    this.header = header;
    const root = opening.slice(header.rootOffset, header.rootOffset + header.rootLength);
    this.root = readDirectory(await expand(root, header.directoryCompression));
    const metadata = await this.read(header.metadataOffset, header.metadataLength);
    const text = await expand(metadata, header.directoryCompression);
    this.metadata = JSON.parse(new TextDecoder().decode(text));
    return this;
  }

  // The bytes of a tile, decompressed, or null where there is none.
  async tile(z, x, y, signal) {
    try {
      return await this.find(tileId(z, x, y), signal);
    } catch (error) {
      if (!(error instanceof ArchiveChanged)) throw error;
      // What the browser kept of the old archive would be offered again and again.
      this.cache = "reload";
      await this.open();
      return this.find(tileId(z, x, y), signal);
    }
  }

  async find(id, signal) {
    let entries = this.root;
    // The format allows at most three levels below the root.
    for (let depth = 0; depth < 4; depth += 1) {
      const entry = entryAt(entries, id);
      if (!entry) return null;
      if (entry.run > 0) {
        const bytes = await this.read(this.header.tilesOffset + entry.offset, entry.length, signal);
        return expand(bytes, this.header.tileCompression);
      }
      entries = await this.leaf(entry);
    }
    throw new Error(`${this.url} has directories within directories without end`);
  }

  leaf(entry) {
    const known = this.directories.get(entry.offset);
    if (known) return known;
    if (this.directories.size >= CACHED_DIRECTORIES) {
      this.directories.delete(this.directories.keys().next().value);
    }
    // Without the signal of one tile: other tiles wait for the same directory.
    const reading = this.read(this.header.leavesOffset + entry.offset, entry.length)
      .then((bytes) => expand(bytes, this.header.directoryCompression))
      .then(readDirectory);
    reading.catch(() => this.directories.delete(entry.offset));
    this.directories.set(entry.offset, reading);
    return reading;
  }

  async read(offset, length, signal) {
    const range = `bytes=${offset}-${offset + length - 1}`;
    const options = { headers: { Range: range }, signal, cache: this.cache };
    const answer = await fetch(this.url, options).catch(async (error) => {
      if (signal?.aborted) throw error;
      // A connection that breaks between two tiles is no reason to leave a hole in the map. It may
      // be the browser's cache that cannot serve two ranges at once, so the second goes past it.
      await new Promise((resume) => setTimeout(resume, PAUSE_MS));
      return fetch(this.url, { ...options, cache: "no-store" });
    });
    const etag = answer.headers.get("ETag");
    const changed = answer.ok && this.etag && etag !== this.etag;
    if (changed || answer.status !== 206) {
      // A new archive may come whole, and it may be large.
      await answer.body?.cancel();
      if (changed) throw new ArchiveChanged(this.url);
      throw new Error(`${this.url}: ${answer.status} for ${range}`);
    }
    this.etag = etag;
    return answer.arrayBuffer();
  }
}

// Position of a tile on the Hilbert curve, after all tiles of lower zooms.
export function tileId(z, x, y) {
  let id = (4 ** z - 1) / 3;
  for (let side = 2 ** (z - 1); side >= 1; side /= 2) {
    const right = Math.floor(x / side) % 2;
    const up = Math.floor(y / side) % 2;
    id += side * side * ((3 * right) ^ up);
    x %= side;
    y %= side;
    if (!up) {
      if (right) [x, y] = [side - 1 - x, side - 1 - y];
      [x, y] = [y, x];
    }
  }
  return id;
}

function readDirectory(buffer) {
  const bytes = new Uint8Array(buffer);
  let at = 0;
  const varint = () => {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = bytes[at];
      at += 1;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  };
  const count = varint();
  const entries = Array.from({ length: count }, () => ({}));
  let id = 0;
  for (const entry of entries) {
    id += varint();
    entry.id = id;
  }
  for (const entry of entries) entry.run = varint();
  for (const entry of entries) entry.length = varint();
  entries.forEach((entry, index) => {
    const value = varint();
    const before = entries[index - 1];
    entry.offset = value === 0 && before ? before.offset + before.length : value - 1;
  });
  return entries;
}

// The tile entry that covers the id, or the leaf directory that may.
function entryAt(entries, id) {
  let low = 0;
  let high = entries.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (entries[middle].id <= id) low = middle + 1;
    else high = middle - 1;
  }
  const entry = entries[high];
  if (!entry) return null;
  return entry.run === 0 || id - entry.id < entry.run ? entry : null;
}

async function expand(buffer, compression) {
  const format = COMPRESSION[compression];
  if (format === undefined) throw new Error(`unknown compression ${compression}`);
  if (format === null) return buffer;
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream(format));
  return new Response(stream).arrayBuffer();
}
