#!/usr/bin/env bash
# Starts the S3 server with one user, whose keys are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Arguments are ignored:
# they are for the store that this one stands in for.
set -euo pipefail

: "${AWS_ACCESS_KEY_ID:?must be set}" "${AWS_SECRET_ACCESS_KEY:?must be set}"
configuration=/tmp/ceph.conf
cat >"$configuration" <<CONFIGURATION
[global]
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = /tmp
admin_socket =
log_file =
[client]
rgw_backend_store = dbstore
rgw_config_store = dbstore
dbstore_db_dir = /data
dbstore_config_uri = file:/data/dbstore-config.db
rgw_data = /data
rgw_thread_pool_size = 32
rgw_frontends = beast port=${S3_PORT:-8333}
CONFIGURATION

common=(--conf "$configuration" --no-mon-config --name client.rgw.a)
# Once: the keys are kept with the objects. The program is ended as soon as it has answered: about one time in three it
# does its work and then waits for ever for a thread of its own.
make_owner() {
  local answer=/tmp/owner.json maker
  radosgw-admin "${common[@]}" user create --uid=owner --display-name=owner \
    --access-key="$AWS_ACCESS_KEY_ID" --secret-key="$AWS_SECRET_ACCESS_KEY" >"$answer" &
  maker=$!
  for _ in $(seq 300); do
    if grep -q '"secret_key"' "$answer" || ! kill -0 "$maker" 2>/dev/null; then break; fi
    sleep 0.2
  done
  kill -KILL "$maker" 2>/dev/null || true
  wait "$maker" || true
  grep -q '"secret_key"' "$answer"
}

if [[ ! -e /data/.owner-made ]]; then
  make_owner
  touch /data/.owner-made
fi
exec radosgw -d "${common[@]}"
