/** What the console reads of the answers of the API. */

interface Link {
  href: string;
}

export interface ITwin {
  id: string;
  class: string;
  subClass: string;
  number: string;
  displayName: string;
  status: string;
  dataCenterLocation: string;
  createdDateTime: string;
  createdBy: string | null;
}

export interface IModel {
  id: string;
  displayName: string;
  name: string;
  description: string | null;
  state: 'notInitialized' | 'initialized';
  createdDateTime: string;
  lastChangesetPushDateTime: string | null;
  iTwinId: string;
  isSecured: boolean;
  dataCenterLocation: string;
  _links: { creator: Link; upload?: Link | null };
}

export interface CreateOperation {
  state: 'waitingForFile' | 'scheduled' | 'successful' | 'failed' | 'mainIModelIsMissingFederationGuids';
  clonedFrom: { iModelId: string; changesetId: string } | null;
  forkedFrom: { iModelId: string; changesetId: string } | null;
  progress: { changesets: number; totalChangesets: number; bytes: number; totalBytes: number };
  failureReason: string | null;
  createdDateTime: string;
  finishedDateTime: string | null;
}

export interface Changeset {
  id: string;
  index: number;
  description: string | null;
  parentId: string;
  creatorId: string;
  pushDateTime: string;
  containingChanges: number;
  fileSize: number;
  briefcaseId: number;
  groupId: string | null;
  application: { id: string; name: string } | null;
  synchronizationInfo: { taskId: string; changedFiles: string[] | null } | null;
  _links: { currentOrPrecedingCheckpoint: Link | null; namedVersion: Link | null };
}

export interface NamedVersion {
  id: string;
  displayName: string;
  name: string;
  description: string | null;
  changesetId: string | null;
  changesetIndex: number;
  createdDateTime: string;
  state: 'visible' | 'hidden';
}

export interface Checkpoint {
  changesetIndex: number;
  changesetId: string | null;
  state: 'successful' | 'scheduled' | 'failed' | 'notGenerated';
  size: number;
  progress: { changesets: number; totalChangesets: number };
  failureReason: string | null;
}

export interface IModelUser {
  id: string;
  displayName: string;
  givenName: string;
  surname: string;
  email: string;
  statistics: {
    pushedChangesetsCount: number;
    lastChangesetPushDate: string | null;
    createdVersionsCount: number;
    briefcasesCount: number;
    lastAccessTime: string | null;
  };
}

export interface Briefcase {
  briefcaseId: number;
  displayName: string;
  ownerId: string;
  acquiredDateTime: string;
  deviceName: string | null;
  application: { id: string; name: string } | null;
}

export interface LockSet {
  briefcaseId: number;
  lockedObjects: { lockLevel: string; objectIds: string[] }[];
}

export interface Role {
  id: string;
  displayName: string;
  description: string | null;
  permissions: string[];
}

export interface Member {
  id: string;
  email: string;
  givenName: string;
  surname: string;
  organization?: string | null;
  roles: { id: string; displayName: string }[];
}

export interface Owner {
  id: string;
  email: string;
  givenName: string;
  surname: string;
}

export interface Used {
  used: number;
  limit: number | null;
}

export interface Usage {
  iTwin: { bytes: Used; iModels: Used; webhooks: Used; repositories: Used };
  organization: { bytes: Used; iModels: Used } | null;
}
