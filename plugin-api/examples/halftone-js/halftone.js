#!/usr/bin/env node
// An image filter as an executable in JavaScript: each pixel becomes black or white by an ordered pattern of 4 × 4.
//
// It speaks the protocol of plugins in processes of their own (plugin-api/PROTOCOL.md) with nothing but Node. JavaScript can map
// no memory: numbers are read and written at offsets of descriptors 3 and 4. Install: copy this file, executable, and
// halftone.toml into a folder of plugins.
"use strict";
const fs = require("fs");

const [OK, READ, REPLACE, IMAGE] = [0, 1, 3, 2];
const [STAGE, TENSORS] = ["image.post/draft-1", "tensor/draft-1"];
const PATTERN = [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5];

// MessagePack, as much of it as is spoken here. Handles have 64 bits, so all long numbers are BigInt.
function unpack(bytes) {
  let at = 0;
  const number = (size) => {
    at += size;
    return size === 8 ? bytes.readBigUInt64BE(at - size) : bytes.readUIntBE(at - size, size);
  };
  const part = (length) => bytes.subarray(at, (at += length));
  const list = (length) => Array.from({ length }, value);
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [value(), value()]));
  function value() {
    const code = number(1);
    if (code < 0x80) return code;
    if (code < 0x90) return map(code & 15);
    if (code < 0xa0) return list(code & 15);
    if (code < 0xc0) return part(code & 31).toString();
    if (code >= 0xe0) return code - 256;
    if (code === 0xc0) return null;
    if (code === 0xc2 || code === 0xc3) return code === 0xc3;
    if (code <= 0xc6) return part(number(2 ** (code - 0xc4)));
    if (code === 0xca) return part(4).readFloatBE();
    if (code === 0xcb) return part(8).readDoubleBE();
    if (code <= 0xcf) return number(2 ** (code - 0xcc));
    if (code < 0xd3) return part(2 ** (code - 0xd0)).readIntBE(0, 2 ** (code - 0xd0));
    if (code === 0xd3) return part(8).readBigInt64BE();
    if (code >= 0xd9 && code <= 0xdb) return part(number(2 ** (code - 0xd9))).toString();
    if (code === 0xdc || code === 0xdd) return list(number(2 ** (code - 0xdb)));
    if (code === 0xde || code === 0xdf) return map(number(2 ** (code - 0xdd)));
    throw new Error(`MessagePack's ${code}`);
  }
  return value();
}

function pack(value) {
  const head = (code, size, write) => {
    const bytes = Buffer.alloc(1 + size);
    bytes[0] = code;
    write(bytes);
    return bytes;
  };
  if (value === null) return Buffer.from([0xc0]);
  if (typeof value === "bigint") return head(0xcf, 8, (bytes) => bytes.writeBigUInt64BE(value, 1));
  if (typeof value === "number") return head(0xce, 4, (bytes) => bytes.writeUInt32BE(value, 1));
  if (typeof value === "string") {
    const text = Buffer.from(value);
    return Buffer.concat([head(0xdb, 4, (bytes) => bytes.writeUInt32BE(text.length, 1)), text]);
  }
  const items = Array.isArray(value) ? value : Object.entries(value).flat();
  const [code, length] = Array.isArray(value) ? [0xdd, items.length] : [0xdf, items.length / 2];
  return Buffer.concat([head(code, 4, (bytes) => bytes.writeUInt32BE(length, 1)), ...items.map(pack)]);
}

function read(length) {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; ) {
    const read = fs.readSync(0, bytes, at, length - at);
    if (read === 0) process.exit();
    at += read;
  }
  return bytes;
}

const receive = () => unpack(read(read(4).readUInt32BE()));

function send(message) {
  const packed = pack(message);
  const bytes = Buffer.concat([Buffer.alloc(4), packed]);
  bytes.writeUInt32BE(packed.length);
  for (let at = 0; at < bytes.length; ) at += fs.writeSync(1, bytes, at);
}

function ask(table, func, args) {
  send([1, 0, table, func, args]);
  const [, status, results, error] = receive();
  if (status !== OK) {
    send([3, 0, "host", "fail", { status, text: error }]);
    throw Object.assign(new Error(error), { status });
  }
  return results;
}

const mapped = (handle, mode) => ask(TENSORS, "map", { handle, mode, code: 0, bits: 0, layout: 0 });

function halftone(pictures) {
  pictures.forEach(({ pixels }, slot) => {
    const { shape } = ask(TENSORS, "info", { handle: pixels }).info;
    const made = ask(TENSORS, "alloc", { info: { kind: IMAGE, ndim: 4, shape } }).handle;
    const [channels, width] = [Number(shape[1]), Number(shape[3])];
    const { from, bytes } = mapped(pixels, READ);
    const image = Buffer.alloc(Number(bytes));
    fs.readSync(3, image, 0, image.length, from);
    for (let at = 0; at < image.length; at += channels) {
      const [x, y] = [(at / channels) % width, Math.floor(at / channels / width)];
      const light = (image[at] * 299 + image[at + 1] * 587 + image[at + 2] * 114) / 1000;
      image.fill(light > 16 * PATTERN[(y % 4) * 4 + (x % 4)] + 8 ? 255 : 0, at, at + 3);
    }
    fs.writeSync(4, image, 0, image.length, Number(mapped(made, REPLACE).from));
    ask(TENSORS, "unmap", { handle: made });
    ask("host", "replace", { slot, handle: made });
  });
}

for (;;) {
  const [, , table, func, , args] = receive();
  let [status, results] = [OK, {}];
  if (func === "init") results = { tables: [STAGE], functions: [] };
  if (table === STAGE) {
    try {
      halftone(args.pictures);
    } catch (error) {
      if (!error.status) throw error;
      ({ status } = error);
    }
  }
  send([2, status, results, null]);
}
