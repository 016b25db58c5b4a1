# Offshoot: the server (`start`), and workers for installations on PostgreSQL (`work`).
# All binaries come with npm packages; nothing else is downloaded.
# A tag can be moved to another image; docs/operating.md describes how to pin the base image by its digest.
ARG NODE_IMAGE=node:24-bookworm-slim
FROM ${NODE_IMAGE} AS build
WORKDIR /offshoot
COPY . .
RUN npm ci --ignore-scripts && npm run build -w apps/server
# `--build-arg VIEWER=1` adds the page with the official iTwin viewer: 16 MB. Its 446 MB of packages are needed only here.
# The back end for viewers needs iTwin.js, so do not combine it with `WITHOUT="@bentley @itwin"` except for servers with `viewer.service`.
ARG VIEWER=""
RUN mkdir -p packages/viewer/dist && if [ -n "${VIEWER}" ]; then npm run viewer; fi

FROM ${NODE_IMAGE}
WORKDIR /offshoot
COPY package.json package-lock.json .npmrc ./
COPY apps/server/package.json apps/server/
COPY apps/console/package.json apps/console/
COPY packages/itwinjs/package.json packages/itwinjs/
COPY packages/testing/package.json packages/testing/
# Includes the optional packages: iTwin.js, the SDKs of S3 and Azure, sharp and the page of the API document.
# `--build-arg NPM_FLAGS=--omit=optional` leaves all of them out; `--build-arg WITHOUT="@bentley @itwin"` only iTwin.js.
ARG NPM_FLAGS=""
ARG WITHOUT=""
# Only what the server needs. Without `-w`, a second Node and optional peers of other packages come along: 636 MB instead of 421 MB.
RUN npm ci --omit=dev -w apps/server ${NPM_FLAGS} && npm cache clean --force && (cd node_modules && rm -rf ${WITHOUT})
COPY apps/server/assets apps/server/assets
COPY apps/server/bin apps/server/bin
COPY --from=build /offshoot/apps/server/dist apps/server/dist
# Empty without `VIEWER`.
COPY --from=build /offshoot/packages/viewer/dist packages/viewer/dist

ENV NODE_ENV=production OFFSHOOT_DATA=/data OFFSHOOT_HOST=0.0.0.0
# Settings of glibc: two pools of memory for all threads, which give what is free back. Measured after uploads, pushes and clones,
# the server takes up to 60 MiB less memory and no more CPU time.
ENV MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=131072
RUN mkdir /data && chown node:node /data
USER node
VOLUME /data
EXPOSE 4700 4701
# The server is process 1, so that it receives SIGTERM and can finish its work.
# A small young generation: measured with reads and clones, it takes 120 MiB less memory and no more CPU time.
ENTRYPOINT ["node", "--max-semi-space-size=4", "apps/server/bin/offshoot.cjs"]
CMD ["start"]
HEALTHCHECK --interval=10s --start-period=30s CMD ["node", "-e", "fetch('http://127.0.0.1:4700/health').then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
