// Every chunk is in the folder `assets`, so its address says where the console is, whatever path a proxy adds.
const here = import.meta.url;

/** Address of the console, with a slash at the end. */
export const consoleAddress = here.replace(/assets\/[^/]*$/, '');
/** Address of the server, without a slash at the end. */
export const serverAddress = consoleAddress.replace(/\/console\/$/, '');
/** Path below which the routes of the console are. */
export const basePath = new URL(consoleAddress).pathname.replace(/\/$/, '');
