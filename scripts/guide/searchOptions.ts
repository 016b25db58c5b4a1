/** A section of a page, as it is found. */
export interface Section {
  /** Address and anchor, relative to the guide. */
  id: string;
  page: string;
  heading: string;
  /** How it begins. */
  text: string;
}

/** The index and the page that loads it need the same options. */
export const indexOptions = { fields: ['heading', 'page', 'body'], storeFields: ['page', 'heading', 'text'] };
