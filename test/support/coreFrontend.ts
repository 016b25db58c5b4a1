/** What `@itwin/imodels-access-frontend` takes from `@itwin/core-frontend`, for a page that needs nothing else of it. */
export const IModelApp = { getAccessToken: async (): Promise<string> => '' };
