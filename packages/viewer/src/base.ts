/** Address of the viewer, with a slash at the end: every chunk is in the folder `assets`, whatever path a proxy adds. */
const viewerAddress = import.meta.url.replace(/assets\/[^/]*$/, '');
/** Address of the server, without a slash at the end. */
export const serverAddress = viewerAddress.replace(/\/viewer\/$/, '');
export const consoleAddress = `${serverAddress}/console/`;
