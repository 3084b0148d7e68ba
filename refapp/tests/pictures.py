"""Pictures to upload, made here so that no file is needed."""

import math
import struct
import zlib


def make_picture(path, width=640, height=480):
    """Write a PNG of hills before an evening sky."""
    rows = []
    for y in range(height):
        row = bytearray(b"\0")  # no filter
        for x in range(width):
            row += bytes(colour(x / width, y / height))
        rows.append(bytes(row))
    header = struct.pack(
        ">IIBBBBB", width, height, 8, 2, 0, 0, 0
    )  # 8 bits each of red, green, blue
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks))
    return path


def chunk(kind, data):
    """Return a part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def colour(x, y):
    """Return red, green and blue at a place, from 0 to 255."""
    for depth, (red, green, blue) in enumerate([(18, 52, 59), (28, 84, 88), (70, 130, 122)]):
        ridge = 0.86 - 0.13 * depth + 0.06 * math.sin((5 - depth) * 2.2 * x + 1.7 * depth)
        if y > ridge:
            return red, green, blue
    return int(250 - 40 * y), int(150 + 90 * y), int(110 + 60 * y)
