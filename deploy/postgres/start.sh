#!/usr/bin/env bash
# Starts Postgres with TLS. It takes only a key that its own user owns, and a mounted file belongs to the host's user:
# so key and certificate are copied first, as root, before the image's own entrypoint drops to the user postgres.
set -euo pipefail

install -d -o postgres -g postgres -m 0700 /run/postgres-tls
install -o postgres -g postgres -m 0600 /run/secrets/postgres_key /run/postgres-tls/server.key
install -o postgres -g postgres -m 0644 /run/secrets/postgres_certificate /run/postgres-tls/server.crt

exec docker-entrypoint.sh postgres \
  -c ssl=on \
  -c ssl_cert_file=/run/postgres-tls/server.crt \
  -c ssl_key_file=/run/postgres-tls/server.key \
  -c ssl_min_protocol_version=TLSv1.2 \
  -c hba_file=/etc/refund/pg_hba.conf \
  "$@"
