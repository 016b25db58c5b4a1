import { ownPackage } from './version.ts';

/**
 * The parts of the server that an installation may leave out (`npm install --omit=optional`), and the packages of each. A part is
 * loaded when it is first used.
 */
const parts = {
  s3: ['@aws-sdk/client-s3', '@aws-sdk/lib-storage', '@aws-sdk/s3-request-presigner'],
  azure: ['@azure/storage-blob'],
  documentationPage: ['@scalar/fastify-api-reference'],
} as const;

/** A part was left out of this installation. The message has the command that adds it. */
export class MissingPartError extends Error {
  constructor(packages: readonly string[], cause: unknown) {
    const wanted = packages.map((name) => `"${name}@${ownPackage.optionalDependencies[name] ?? 'latest'}"`);
    super(`its packages are not installed. Install them with: npm install --omit=optional ${wanted.join(' ')}`, {
      cause,
    });
    this.name = 'MissingPartError';
  }
}

/**
 * Loads the code of an optional part.
 * @throws MissingPartError if its packages are not installed
 */
export async function optionalPart<T>(part: keyof typeof parts, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    const packages = parts[part];
    const { code, message } = error as NodeJS.ErrnoException;
    // Any other module that is missing is a broken installation, and keeps its error.
    if (code === 'ERR_MODULE_NOT_FOUND' && packages.some((name) => message.includes(`'${name}'`)))
      throw new MissingPartError(packages, error);
    throw error;
  }
}
