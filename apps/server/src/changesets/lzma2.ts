/** The packed bytes are not an LZMA2 stream, or the stream is damaged. */
export class DamagedStreamError extends Error {
  constructor(reason: string) {
    super(`damaged LZMA2 stream: ${reason}`);
    this.name = 'DamagedStreamError';
  }
}

/** Largest packed chunk with its header, bytes: the format counts the packed bytes of a chunk in 16 bits. */
const maxPacked = 6 + 65_536;
/** Probabilities of the range coder have 11 bits and begin in the middle. */
const initialProbability = 1024;
const literalCoderSize = 0x300;

/**
 * Unpacks an LZMA2 stream that arrives in pieces. It keeps only as much in memory as the longest back-reference needs: at most
 * twice the size of the dictionary.
 */
export class Lzma2Decoder {
  readonly #dictionaryBytes: number;
  /** Packed bytes of an incomplete chunk. */
  #pending: Buffer = Buffer.alloc(0);
  /** Unpacked bytes. Back-references can reach the last `#dictionaryBytes` of them. */
  #output = new Uint8Array(65_536);
  #end = 0;
  /** Offset of the first byte after the last reset of the dictionary. */
  #dictionaryStart = 0;
  /** Bytes since the last reset of the dictionary that are no longer in `#output`. */
  #dropped = 0;
  #needsDictionary = true;
  #needsProperties = true;
  #needsState = true;
  #finished = false;
  readonly #coder = new RangeDecoder();

  /** @param property the byte before the stream, which encodes the size of the dictionary */
  constructor(property: number) {
    if (property > 40) throw new DamagedStreamError('the size of the dictionary is not valid');
    // iTwin.js uses 16 MiB. The limit prevents a forged file from exhausting memory.
    this.#dictionaryBytes = Math.min(2 ** 28, (2 | (property & 1)) * 2 ** ((property >> 1) + 11));
  }

  /** Whether the end of the stream was reached; bytes after it are ignored. */
  get finished(): boolean {
    return this.#finished;
  }

  /**
   * Unpacks more bytes. Each piece that it yields is valid only until the next one is requested.
   * @throws DamagedStreamError
   */
  *push(packed: Buffer): Generator<Uint8Array, void, void> {
    let input = this.#pending.length === 0 ? packed : Buffer.concat([this.#pending, packed]);
    while (!this.#finished) {
      const chunk = chunkIn(input);
      if (chunk === undefined) break;
      if (chunk === 'end') {
        this.#finished = true;
        break;
      }
      const from = this.#unpack(chunk, input);
      input = input.subarray(chunk.length);
      yield this.#output.subarray(from, this.#end);
    }
    this.#pending = this.#finished ? Buffer.alloc(0) : Buffer.from(input);
  }

  /** Unpacks one chunk. @returns where its bytes begin in `#output` */
  #unpack(chunk: Chunk, input: Buffer): number {
    if (chunk.resetDictionary) {
      this.#needsDictionary = false;
      this.#dictionaryStart = this.#end;
      this.#dropped = 0;
    } else if (this.#needsDictionary) throw new DamagedStreamError('it does not begin with an empty dictionary');
    this.#makeRoom(chunk.unpacked);
    const from = this.#end;
    const data = input.subarray(chunk.header, chunk.length);
    if (!chunk.packed) {
      this.#output.set(data, from);
      this.#end += data.length;
      if (chunk.resetDictionary) this.#needsProperties = true;
      return from;
    }
    if (chunk.properties !== undefined) {
      this.#coder.setProperties(chunk.properties);
      this.#needsProperties = false;
    } else if (this.#needsProperties) throw new DamagedStreamError('a chunk comes before the properties of the coder');
    if (chunk.resetState) {
      this.#coder.reset();
      this.#needsState = false;
    } else if (this.#needsState) throw new DamagedStreamError('a chunk comes before the first state of the coder');
    this.#end = this.#coder.decode(data, this.#output, from, chunk.unpacked, this.#dictionaryStart, this.#dropped);
    return from;
  }

  /** Reserves space for a number of bytes: by growing, or, at twice the dictionary, by discarding bytes that no back-reference can reach. */
  #makeRoom(bytes: number): void {
    if (this.#end + bytes <= this.#output.length) return;
    const keptFrom = Math.max(this.#dictionaryStart, this.#end - this.#dictionaryBytes);
    const kept = this.#end - keptFrom;
    const limit = 2 * this.#dictionaryBytes + bytes;
    const target =
      this.#output.length < limit && this.#output.length < 2 * (kept + bytes)
        ? new Uint8Array(Math.min(limit, 2 * (kept + bytes)))
        : this.#output;
    target.set(this.#output.subarray(keptFrom, this.#end));
    this.#dropped += keptFrom - this.#dictionaryStart;
    this.#dictionaryStart = 0;
    this.#end = kept;
    this.#output = target;
  }
}

/** The header of a chunk of the stream. */
interface Chunk {
  /** Bytes of the header, and of header and data. */
  header: number;
  length: number;
  packed: boolean;
  /** Unpacked size. */
  unpacked: number;
  resetDictionary: boolean;
  resetState: boolean;
  properties: number | undefined;
}

/** The chunk at the start of some bytes; undefined if it is incomplete. */
function chunkIn(input: Buffer): Chunk | 'end' | undefined {
  const control = input[0];
  if (control === undefined) return undefined;
  if (control === 0) return 'end';
  if (control > 2 && control < 0x80) throw new DamagedStreamError('a chunk of an unknown kind');
  const packed = control >= 0x80;
  const reset = packed ? (control >> 5) & 3 : control === 1 ? 3 : 0;
  const header = packed ? (reset >= 2 ? 6 : 5) : 3;
  if (input.length < header) return undefined;
  const unpacked = (packed ? (control & 0x1f) << 16 : 0) + input.readUInt16BE(1) + 1;
  const length = header + (packed ? input.readUInt16BE(3) + 1 : unpacked);
  if (length > maxPacked) throw new DamagedStreamError('a chunk is too long');
  if (input.length < length) return undefined;
  return {
    header,
    length,
    packed,
    unpacked,
    resetDictionary: reset === 3,
    resetState: packed && reset >= 1,
    properties: packed && reset >= 2 ? input[5] : undefined,
  };
}

/** Offset of each part of the model in the array of probabilities; the format defines the sizes. */
const isMatch = 0;
const isRepeat = isMatch + (12 << 4);
const isRepeat0 = isRepeat + 12;
const isRepeat1 = isRepeat0 + 12;
const isRepeat2 = isRepeat1 + 12;
const isLongRepeat0 = isRepeat2 + 12;
const distanceSlot = isLongRepeat0 + (12 << 4);
const distanceSpecial = distanceSlot + 4 * 64;
const distanceAlign = distanceSpecial + 128;
const matchLength = distanceAlign + 16;
/** A length coder: two choices, 16 trees each of 8 for short and middle lengths, one of 256 for long ones. */
const lengthCoderSize = 2 + 2 * (16 << 3) + 256;
const repeatLength = matchLength + lengthCoderSize;
const literals = repeatLength + lengthCoderSize;

/** Decodes chunks of LZMA: a model of adaptive probabilities, kept from one chunk to the next, over a range coder. */
class RangeDecoder {
  readonly #probabilities = new Uint16Array(literals + (literalCoderSize << 4));
  #literalContextBits = 0;
  #literalPositionMask = 0;
  #positionMask = 0;
  #state = 0;
  #repeats: [number, number, number, number] = [0, 0, 0, 0];
  #input: Buffer = Buffer.alloc(0);
  #at = 0;
  /** Both are unsigned 32-bit values stored as signed ones, which V8 handles without allocating. */
  #range = 0;
  #code = 0;

  setProperties(byte: number): void {
    const literalContextBits = byte % 9;
    const literalPositionBits = Math.trunc(byte / 9) % 5;
    const positionBits = Math.trunc(byte / 45);
    if (positionBits > 4 || literalContextBits + literalPositionBits > 4)
      throw new DamagedStreamError('the properties of the coder are not valid');
    this.#literalContextBits = literalContextBits;
    this.#literalPositionMask = (1 << literalPositionBits) - 1;
    this.#positionMask = (1 << positionBits) - 1;
  }

  reset(): void {
    this.#probabilities.fill(initialProbability);
    this.#state = 0;
    this.#repeats = [0, 0, 0, 0];
  }

  /**
   * @param output receives the bytes, starting at `from`
   * @param start offset of the dictionary in `output`
   * @param dropped bytes of the dictionary before that
   * @returns the end of what was written
   */
  decode(input: Buffer, output: Uint8Array, from: number, bytes: number, start: number, dropped: number): number {
    if (input.length < 5 || input[0] !== 0) throw new DamagedStreamError('a chunk does not begin as one');
    this.#input = input;
    this.#range = -1;
    this.#code = input.readInt32BE(1);
    this.#at = 5;
    const end = from + bytes;
    let [repeat0, repeat1, repeat2, repeat3] = this.#repeats;
    let state = this.#state;
    let at = from;
    while (at < end) {
      const position = at - start + dropped;
      const positionState = position & this.#positionMask;
      if (this.#bit(isMatch + (state << 4) + positionState) === 0) {
        output[at] = this.#literal(
          state,
          position,
          at > start ? (output[at - 1] as number) : 0,
          at > start + repeat0 ? (output[at - repeat0 - 1] as number) : 0,
        );
        at++;
        state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
        continue;
      }
      let length: number;
      if (this.#bit(isRepeat + state) === 0) {
        repeat3 = repeat2;
        repeat2 = repeat1;
        repeat1 = repeat0;
        length = this.#length(matchLength, positionState);
        state = state < 7 ? 7 : 10;
        repeat0 = this.#distance(length);
      } else {
        if (this.#bit(isRepeat0 + state) === 0) {
          if (this.#bit(isLongRepeat0 + (state << 4) + positionState) === 0) {
            if (repeat0 >= at - start) throw new DamagedStreamError('it refers to bytes before its beginning');
            output[at] = output[at - repeat0 - 1] as number;
            at++;
            state = state < 7 ? 9 : 11;
            continue;
          }
        } else {
          let distance = repeat1;
          if (this.#bit(isRepeat1 + state) === 1) {
            if (this.#bit(isRepeat2 + state) === 0) distance = repeat2;
            else {
              distance = repeat3;
              repeat3 = repeat2;
            }
            repeat2 = repeat1;
          }
          repeat1 = repeat0;
          repeat0 = distance;
        }
        length = this.#length(repeatLength, positionState);
        state = state < 7 ? 8 : 11;
      }
      if (repeat0 >= at - start) throw new DamagedStreamError('it refers to bytes before its beginning');
      if (at + length > end) throw new DamagedStreamError('a chunk unpacks to more than it says');
      for (let source = at - repeat0 - 1, last = at + length; at < last;) output[at++] = output[source++] as number;
    }
    // Rule of the format: at the end of a chunk the coder has consumed exactly its bytes.
    if (this.#at !== input.length || this.#code !== 0)
      throw new DamagedStreamError('a chunk does not end where it should');
    this.#state = state;
    this.#repeats = [repeat0, repeat1, repeat2, repeat3];
    return end;
  }

  #literal(state: number, position: number, previous: number, matched: number): number {
    const context =
      ((position & this.#literalPositionMask) << this.#literalContextBits) +
      (previous >> (8 - this.#literalContextBits));
    const base = literals + literalCoderSize * context;
    let symbol = 1;
    if (state >= 7) {
      // After a match, the byte that would have followed it predicts this one, as long as the bits agree.
      do {
        const hint = (matched >> 7) & 1;
        matched <<= 1;
        const bit = this.#bit(base + ((1 + hint) << 8) + symbol);
        symbol = (symbol << 1) | bit;
        if (hint !== bit) break;
      } while (symbol < 0x100);
    }
    while (symbol < 0x100) symbol = (symbol << 1) | this.#bit(base + symbol);
    return symbol & 0xff;
  }

  #length(base: number, positionState: number): number {
    if (this.#bit(base) === 0) return 2 + this.#tree(base + 2 + (positionState << 3), 3);
    if (this.#bit(base + 1) === 0) return 10 + this.#tree(base + 2 + (16 << 3) + (positionState << 3), 3);
    return 18 + this.#tree(base + 2 + 2 * (16 << 3), 8);
  }

  #distance(length: number): number {
    const slot = this.#tree(distanceSlot + (Math.min(length - 2, 3) << 6), 6);
    if (slot < 4) return slot;
    const bits = (slot >> 1) - 1;
    const high = (2 | (slot & 1)) * 2 ** bits;
    if (slot < 14) return high + this.#reverseTree(distanceSpecial + high - slot, bits);
    return high + this.#directBits(bits - 4) * 16 + this.#reverseTree(distanceAlign, 4);
  }

  #tree(base: number, bits: number): number {
    let symbol = 1;
    for (let n = 0; n < bits; n++) symbol = (symbol << 1) | this.#bit(base + symbol);
    return symbol - (1 << bits);
  }

  #reverseTree(base: number, bits: number): number {
    let node = 1;
    let symbol = 0;
    for (let n = 0; n < bits; n++) {
      const bit = this.#bit(base + node);
      node = (node << 1) | bit;
      symbol |= bit << n;
    }
    return symbol;
  }

  #directBits(bits: number): number {
    let value = 0;
    for (let n = 0; n < bits; n++) {
      this.#range >>>= 1;
      let bit = 0;
      if (this.#code >>> 0 >= this.#range) {
        this.#code = (this.#code - this.#range) | 0;
        bit = 1;
      }
      value = value * 2 + bit;
      if (this.#range >>> 0 < 0x1000000) this.#refill();
    }
    return value;
  }

  #bit(index: number): 0 | 1 {
    const probability = this.#probabilities[index] as number;
    const bound = Math.imul(this.#range >>> 11, probability);
    let bit: 0 | 1;
    if (this.#code >>> 0 < bound >>> 0) {
      this.#range = bound;
      this.#probabilities[index] = probability + ((2048 - probability) >> 5);
      bit = 0;
    } else {
      this.#range = (this.#range - bound) | 0;
      this.#code = (this.#code - bound) | 0;
      this.#probabilities[index] = probability - (probability >> 5);
      bit = 1;
    }
    if (this.#range >>> 0 < 0x1000000) this.#refill();
    return bit;
  }

  #refill(): void {
    if (this.#at >= this.#input.length) throw new DamagedStreamError('a chunk ends early');
    this.#range <<= 8;
    this.#code = (this.#code << 8) | (this.#input[this.#at++] as number);
  }
}
