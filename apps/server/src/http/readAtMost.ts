/**
 * Reads a complete body up to a maximum size. The stream is destroyed if the body is longer.
 * @param most maximum size, bytes
 * @param tooLong creates the error for a longer body
 * @throws the error of `tooLong`
 */
export async function readAtMost(body: AsyncIterable<Uint8Array>, most: number, tooLong: () => Error): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > most) throw tooLong();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
