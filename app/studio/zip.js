/** Files as one zip archive, stored as they are: pictures are compressed already. */

const CRCS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc >>> 0;
});

/**
 * Write an archive.
 * @param {Array<{name: string, bytes: Uint8Array}>} files fewer than 65,536, below 4 GB together
 * @returns {Blob}
 */
export function toZip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, bytes } of files) {
    const path = new TextEncoder().encode(name);
    const fields = describe(bytes, path.length);
    const head = header(0x04034b50, [[20, 2], ...fields]);
    directory.push(
      header(0x02014b50, [[20, 2], [20, 2], ...fields, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]),
      path,
    );
    parts.push(head, path, bytes);
    offset += head.length + path.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const num = files.length;
  const end = header(0x06054b50, [[0, 2], [0, 2], [num, 2], [num, 2], [size, 4], [offset, 4], [0, 2]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** A name that every system takes, and that none of the earlier ones has. */
export function safeName(text, taken) {
  const plain = text.replace(/[^\w.-]+/g, "_").replace(/^\.+/, "").slice(0, 80) || "picture";
  let name = plain;
  for (let number = 2; taken.has(name); number += 1) name = `${plain}-${number}`;
  taken.add(name);
  return name;
}

function describe(bytes, nameLength) {
  const size = bytes.length;
  const utf8 = 0x0800;
  const firstOfJanuary1980 = 0x21;
  return [[utf8, 2], [0, 2], [0, 2], [firstOfJanuary1980, 2], [crcOf(bytes), 4], [size, 4], [size, 4], [nameLength, 2], [0, 2]];
}

function crcOf(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRCS[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

function header(signature, fields) {
  const length = 4 + fields.reduce((sum, [, size]) => sum + size, 0);
  const view = new DataView(new ArrayBuffer(length));
  view.setUint32(0, signature, true);
  let place = 4;
  for (const [value, size] of fields) {
    if (size === 2) view.setUint16(place, value, true);
    else view.setUint32(place, value, true);
    place += size;
  }
  return new Uint8Array(view.buffer);
}
