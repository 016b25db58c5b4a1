/** The part of `@itwin/core-frontend` that `@itwin/imodels-access-frontend` uses, for a page that needs nothing else of it. */
export const IModelApp = { getAccessToken: async (): Promise<string> => '' };
