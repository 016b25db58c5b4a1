const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'it does not exist',
  EACCES: 'this user may not use it',
  EPERM: 'this user may not use it',
  EROFS: 'it is on a read-only file system',
  ENOTDIR: 'a file is in the place of one of its folders',
  EEXIST: 'it exists already',
  EISDIR: 'it is a folder',
  ENAMETOOLONG: 'its name is too long',
  ENOSPC: 'no space is left',
};

/** Why the system refused to use a file or folder, in words for a person; undefined for any other error. */
export function fileReason(error: unknown): string | undefined {
  const { code, path } = error as NodeJS.ErrnoException;
  return path === undefined ? undefined : reasons[code ?? ''];
}
