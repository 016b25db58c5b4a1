import { crc32, deflateSync } from 'node:zlib';

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

/**
 * Writes a PNG of 8-bit RGB. By hand, so that the graphics process draws where sharp is not installed.
 */
export function writePng(rgb: Uint8Array, width: number, height: number): Buffer {
  const stride = width * 3;
  const rows = Buffer.alloc((stride + 1) * height);
  for (let y = 0; y < height; y++) {
    // Filter 2: the difference to the row above, which suits the even areas of a drawing.
    rows[y * (stride + 1)] = 2;
    for (let x = 0; x < stride; x++)
      rows[y * (stride + 1) + 1 + x] =
        ((rgb[y * stride + x] as number) - (y === 0 ? 0 : (rgb[(y - 1) * stride + x] as number))) & 255;
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([
    signature,
    block('IHDR', header),
    block('IDAT', deflateSync(rows, { level: 9 })),
    block('IEND', Buffer.alloc(0)),
  ]);
}

function block(type: string, data: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(data.length);
  head.write(type, 4, 'latin1');
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(data, crc32(type)));
  return Buffer.concat([head, data, check]);
}
