#!/usr/bin/env python3
"""An image filter as an executable in Python: what is brighter than `threshold` is turned around.

It speaks plugin-api/PROTOCOL.md with NumPy and msgpack. Install: copy this file and solarise.toml into a folder of plugins.
"""

import mmap
import os
import struct
import sys

import msgpack
import numpy as np

OK, READ, REPLACE, IMAGE = 0, 1, 3, 2
STAGE, TENSORS = "image.post/draft-1", "tensor/draft-1"
HOST = open(0, "rb")


def receive():
    """The next message; the process ends where the host does."""
    length = HOST.read(4) or sys.exit()
    return msgpack.unpackb(HOST.read(*struct.unpack(">I", length)))


def send(message):
    packed = msgpack.packb(message)
    data = struct.pack(">I", len(packed)) + packed
    while data:
        data = data[os.write(1, data):]


def ask(table, function, **arguments):
    """Asks a service of the host; while a filter waits for these, the host calls nothing."""
    send([1, 0, table, function, arguments])
    _, status, results, error = receive()
    if status != OK:
        send([3, 0, "host", "fail", {"status": status, "text": error}])
        raise RuntimeError(status)
    return results


def mapped(handle, mode):
    """An image's bytes, interleaved, where the host put them or wants them."""
    place = ask(TENSORS, "map", handle=handle, mode=mode, code=0, bits=0, layout=0)
    fd, access = (3, mmap.ACCESS_READ) if mode == READ else (4, mmap.ACCESS_WRITE)
    memory = mmap.mmap(fd, place["from"] + place["bytes"], access=access)
    return np.frombuffer(memory, np.uint8, place["bytes"], place["from"])


def solarise(pictures, threshold):
    for slot, picture in enumerate(pictures):
        info = ask(TENSORS, "info", handle=picture["pixels"])["info"]
        made = ask(TENSORS, "alloc", info={"kind": IMAGE, "ndim": 4, "shape": info["shape"]})["handle"]
        pixels, result = mapped(picture["pixels"], READ), mapped(made, REPLACE)
        result[:] = np.where(pixels > threshold, 255 - pixels, pixels)
        ask(TENSORS, "unmap", handle=made)
        ask("host", "replace", slot=slot, handle=made)


thresholds = {}
while True:
    _, _, table, function, instance, arguments = receive()
    status, results = OK, {}
    if function == "init":
        results = {"tables": [STAGE], "functions": ["entry.create"]}
    elif function == "create":
        instance = max(thresholds, default=0) + 1
        thresholds[instance] = msgpack.unpackb(arguments["params"])["threshold"]
        results = {"instance": instance}
    elif function == "destroy":
        del thresholds[instance]
    elif table == STAGE:
        try:
            solarise(arguments["pictures"], thresholds[instance])
        except RuntimeError as refused:
            status = refused.args[0]
    send([2, status, results, None])
