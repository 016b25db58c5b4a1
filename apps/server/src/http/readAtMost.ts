/**
 * Reads a body whole, within a bound; leaving early ends the stream.
 * @param most bytes
 * @param tooLong makes the error of a longer one
 * @throws what `tooLong` makes
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
