import { Type, type Static } from '../jsonSchema.ts';
import type { RepositoryTable } from '../db/schemaOfITwins.ts';
import { parseGuid } from '../domain.ts';
import { detail, type ErrorDetail } from '../errors.ts';
import type { NewRepository } from '../iTwins/repositories.ts';
import { madeIn } from './made.ts';
import type { ApiErrorOf } from './paging.ts';
import { itwinRoute, type Route } from './route.ts';
import { emptyToNull, IdText, LabelText, Nullable, NullableWord } from './schemas.ts';

const tag = 'iTwins';

const classes = [
  'RealityData',
  'iModels',
  'Storage',
  'Forms',
  'Issues',
  'ProjectWise',
  'GeographicInformationSystem',
  'Construction',
  'Subsurface',
  'GeospatialFeatures',
  'CesiumCuratedContent',
  'SensorData',
  'PdfPlansets',
  'IndexedMedia',
  'Performance',
];
/** Classes with which each subclass may be combined; an empty list allows any class. */
const classesOf: Readonly<Record<string, readonly string[]>> = {
  WebMapService: ['GeographicInformationSystem'],
  WebMapTileService: ['GeographicInformationSystem'],
  MapServer: ['GeographicInformationSystem'],
  ArcGIS: ['GeographicInformationSystem'],
  UrlTemplate: ['GeographicInformationSystem'],
  WebFeatureService: ['GeographicInformationSystem', 'GeospatialFeatures'],
  OgcApiFeatures: ['GeographicInformationSystem', 'GeospatialFeatures'],
  EvoWorkspace: ['Subsurface'],
  Performance: [],
};
const subClasses = Object.keys(classesOf);

function isAllowed(repositoryClass: string, subClass: string): boolean {
  const allowed = classesOf[subClass] ?? [];
  return allowed.length === 0 || allowed.includes(repositoryClass);
}

const maxOptionsCharacters = 10_000;
const Secret = Type.String({ maxLength: 4000 });
const Authentication = Type.Object({
  type: Type.String({ enum: ['Header', 'QueryParameter', 'Basic'] }),
  key: Type.Optional(Secret),
  value: Type.Optional(Secret),
  username: Type.Optional(Secret),
  password: Type.Optional(Secret),
});
const wrongAuthentication =
  "Authentication value is incorrect. It has a type, and 'key' and 'value' for Header and QueryParameter, 'username' and 'password' for Basic.";
const Options = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  description: `Options for clients of the repository, as JSON of at most ${maxOptionsCharacters} characters.`,
});
const Repository = Type.Object({
  id: Type.String(),
  class: Type.String(),
  subClass: Type.Optional(Type.String()),
  displayName: Type.String({ description: 'The `uri` if the repository has no name.' }),
  uri: Type.String(),
  options: Type.Optional(Options),
  authentication: Type.Optional(Authentication),
  capabilities: Type.Object(
    {},
    { description: 'Always empty: this server lists neither resources nor graphics of repositories.' },
  ),
});
const RepositoryResponse = Type.Object({ repository: Repository });
const repositoriesPath = '/itwins/:iTwinId/repositories';

function toRepository(row: RepositoryTable): Static<typeof Repository> {
  return {
    id: row.id,
    class: row.class,
    ...(row.sub_class !== null && { subClass: row.sub_class }),
    displayName: row.display_name ?? row.uri,
    uri: row.uri,
    ...(row.options !== null && { options: JSON.parse(row.options) as Record<string, unknown> }),
    ...(row.authentication !== null && {
      authentication: JSON.parse(row.authentication) as Static<typeof Authentication>,
    }),
    capabilities: {},
  };
}

const missing = 'A required property is missing or empty.';
const described = {
  displayName: Type.Optional(Nullable(LabelText({ tooLong: 'DisplayName cannot be more than 255 characters.' }))),
  options: Type.Optional(Nullable(Options)),
  authentication: Type.Optional(Nullable(Type.Object(Authentication.properties, { refusal: wrongAuthentication }))),
};
const Uri = Type.String({
  minLength: 1,
  maxLength: 2000,
  pattern: '\\S',
  tooLong: 'Uri cannot be more than 2000 characters.',
  missing,
});

/** The columns that a body sets; absent properties keep their values. @throws ApiError 422 */
function describedColumns(
  body: {
    displayName?: string | null | undefined;
    options?: Record<string, unknown> | null | undefined;
    authentication?: Static<typeof Authentication> | null | undefined;
  },
  invalid: ApiErrorOf,
): Partial<Pick<NewRepository, 'display_name' | 'options' | 'authentication'>> {
  const json = (value: unknown): string | null => (value === null ? null : JSON.stringify(value));
  const options = body.options === undefined ? undefined : json(body.options);
  if (options != null && options.length > maxOptionsCharacters)
    throw invalid([
      detail.invalidValue('options', `Options cannot be more than ${maxOptionsCharacters} characters of JSON.`),
    ]);
  const { authentication } = body;
  const needed = authentication?.type === 'Basic' ? (['username', 'password'] as const) : (['key', 'value'] as const);
  if (authentication != null && needed.some((name) => authentication[name] === undefined))
    throw invalid([detail.invalidValue('authentication', wrongAuthentication)]);
  return {
    ...(body.displayName !== undefined && { display_name: emptyToNull(body.displayName) }),
    ...(options !== undefined && { options }),
    ...(authentication !== undefined && { authentication: json(authentication) }),
  };
}

const listRepositories = itwinRoute({
  operationId: 'get-repositories-by-itwin-id',
  method: 'GET',
  path: repositoriesPath,
  tag,
  summary: 'List the repositories of an iTwin: external places that hold its data',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot query iTwin Repositories.',
  query: Type.Object({
    class: Type.Optional(
      Type.String({ enum: classes, refusal: 'A valid iTwin Repository Class was not specified in the query.' }),
    ),
    subClass: Type.Optional(
      Type.String({ enum: subClasses, refusal: 'A valid iTwin Repository SubClass was not specified in the query.' }),
    ),
  }),
  response: {
    status: 200,
    description: 'The repositories.',
    schema: Type.Object({ repositories: Type.Array(Repository) }),
  },
  async handler({ access, query, services, invalid }) {
    if (query.class !== undefined && query.subClass !== undefined && !isAllowed(query.class, query.subClass))
      throw invalid([
        detail.invalidValue('subClass', 'A valid iTwin Repository SubClass was not specified in the query.'),
      ]);
    return { repositories: (await services.repositories.list(access.itwin.id, query)).map(toRepository) };
  },
});

const getRepository = itwinRoute({
  operationId: 'get-repository',
  method: 'GET',
  path: `${repositoriesPath}/:repositoryId`,
  tag,
  summary: 'Get a repository',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get iTwin Repository.',
  iTwinNotFound: 'iTwinRepositoryNotFound',
  response: { status: 200, description: 'The repository.', schema: RepositoryResponse },
  errors: ['iTwinRepositoryNotFound'],
  async handler({ access, params, services }) {
    return {
      repository: toRepository(
        await services.repositories.get(access.itwin.id, parseGuid(params['repositoryId'] ?? '')),
      ),
    };
  },
});

const createRepository = itwinRoute({
  operationId: 'create-repository',
  method: 'POST',
  path: repositoriesPath,
  tag,
  summary: 'Add a repository',
  description: 'Every member of the iTwin can read the repository, including its `authentication`.',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot add iTwin Repository.',
  made: madeIn('repository', 'repository'),
  body: Type.Object({
    class: Type.String({ enum: classes, refusal: 'Class value is incorrect.', missing }),
    subClass: Type.Optional(NullableWord(subClasses, { refusal: 'SubClass value is incorrect.' })),
    uri: Uri,
    ...described,
  }),
  response: { status: 201, description: 'The repository.', schema: RepositoryResponse },
  errors: ['iTwinRepositoryExists'],
  async handler({ access, caller, body, services, invalid }) {
    if (body.subClass != null && !isAllowed(body.class, body.subClass))
      throw invalid([detail.invalidValue('subClass', 'SubClass value is incorrect.')]);
    const row = await services.repositories.create(caller, access.itwin.id, {
      class: body.class,
      sub_class: body.subClass ?? null,
      uri: body.uri,
      display_name: null,
      options: null,
      authentication: null,
      ...describedColumns(body, invalid),
    });
    return { repository: toRepository(row) };
  },
});

const updateRepository = itwinRoute({
  operationId: 'update-repository',
  method: 'PATCH',
  path: `${repositoriesPath}/:repositoryId`,
  tag,
  summary: 'Update a repository',
  description: 'Absent properties keep their values; `options` and `authentication` are replaced as a whole.',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot update iTwin Repository.',
  iTwinNotFound: 'iTwinRepositoryNotFound',
  body: Type.Object({
    uri: Type.Optional(Uri),
    ...described,
    id: Type.Optional(Nullable(IdText())),
    class: Type.Optional(Nullable(IdText())),
    subClass: Type.Optional(Nullable(IdText())),
  }),
  bodyTypes: ['application/json', 'application/json-patch+json', 'application/merge-patch+json'],
  response: { status: 200, description: 'The updated repository.', schema: RepositoryResponse },
  errors: ['iTwinRepositoryNotFound', 'iTwinRepositoryExists'],
  async handler({ access, caller, params, body, services, invalid }) {
    const before = await services.repositories.get(access.itwin.id, parseGuid(params['repositoryId'] ?? ''));
    // Clients send the whole repository back, so read-only properties are accepted if their values are unchanged.
    const refused = (
      [
        ['id', before.id],
        ['class', before.class],
        ['subClass', before.sub_class],
      ] as const
    )
      .filter(([name, value]) => body[name] !== undefined && body[name] !== value)
      .map(([target]): ErrorDetail => ({
        code: 'ReadOnlyProperty',
        message: `${target[0]?.toUpperCase() ?? ''}${target.slice(1)} is read only and cannot be modified.`,
        target,
      }));
    if (refused.length > 0) throw invalid(refused);
    const row = await services.repositories.update(caller, before, {
      ...(body.uri !== undefined && { uri: body.uri }),
      ...describedColumns(body, invalid),
    });
    return { repository: toRepository(row) };
  },
});

const deleteRepository = itwinRoute({
  operationId: 'delete-repository',
  method: 'DELETE',
  path: `${repositoriesPath}/:repositoryId`,
  tag,
  summary: 'Delete a repository',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot delete iTwin Repository.',
  iTwinNotFound: 'iTwinRepositoryNotFound',
  response: { status: 204, description: 'Deleted.' },
  errors: ['iTwinRepositoryNotFound'],
  async handler({ access, caller, params, services }) {
    await services.repositories.delete(caller, access.itwin.id, parseGuid(params['repositoryId'] ?? ''));
  },
});

export const repositoryRoutes: Route[] = [
  listRepositories,
  getRepository,
  createRepository,
  updateRepository,
  deleteRepository,
];
