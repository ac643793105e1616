# A broker's way to Streamr's network: Node, the locked packages, one program. Nothing is compiled, nothing runs at install.
# Pinned; raise it knowingly, or name a digest: --build-arg NODE=20.19.4-bookworm-slim@sha256:…
ARG NODE=20.19.4-bookworm-slim
FROM node:${NODE}
WORKDIR /app
COPY validator/net/streamr/node/package.json validator/net/streamr/node/package-lock.json ./
COPY validator/net/streamr/node/stubs ./stubs
RUN npm ci --ignore-scripts --no-audit --no-fund && npm cache clean --force
COPY validator/net/streamr/node/bridge.mjs validator/net/streamr/node/parts.mjs ./
COPY validator/net/streamr/node/joining.mjs validator/net/streamr/node/dispatch.mjs ./
RUN useradd --uid 10001 --create-home validator && mkdir /bridge && chown validator /bridge
USER validator
CMD ["node", "--max-old-space-size=512", "bridge.mjs", "/etc/logstore/bridge.json"]
