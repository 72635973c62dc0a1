#!/usr/bin/env bash
# Runs parts of the stack with docker compose, without Airflow or with it. `make build` and `make env` come first.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
  cat <<'TEXT'
Usage: ./run_compose_options.sh COMMAND [ARGUMENTS]

Stages, each in a container of its own; arguments are those of `product-classifier STAGE`:
  import              import the catalogue that DATA_SOURCE names into data/raw
  train               train both branches and their fusion into models/candidate
  gate                publish the candidate as champion, if it is good enough
  predict             score the unlabelled products into data/predictions
  check|version STAGE ask DVC what changed; record and push what a stage made (STAGE: ingest, train, predict)
  pipeline            import, train, gate, predict, auth and serve, one after the other

Services, which stay up:
  auth                sign-in, on port 8011 (AUTH_PORT)
  serve               the prediction API, on port 8000 (SERVE_PORT), with auth
  mlflow              the MLflow server, on port 5000 (MLFLOW_PORT), with its database and object store
  monitoring          Prometheus, Alertmanager, their exporters and Grafana, on ports 9090, 9093, 9100 and 3000
  airflow             Airflow with everything it needs, on port 8080 (AIRFLOW_PORT); also --scale airflow-worker=3

The stack:
  status, logs [SERVICE], down      as docker compose ps, logs, down; `make stop` also ends what Airflow deployed
  compose ARGUMENTS                 any docker compose command, with this checkout's values

Folders outside the checkout are not seen by a stage: ./run_compose_options.sh compose run -v /data:/data:ro ingest
TEXT
}

# .env is the user's; the second file is what `make start` or `make env` computed (image tag, owner of the checkout).
files=()
for file in .env .state/compose.env; do
  if [[ -f $file ]]; then files+=(--env-file "$file"); fi
done
compose() { docker compose "${files[@]}" "$@"; }
stage() { compose --profile stages run --rm "$@"; }

# Read by containers that run as users of their own; a checkout made under umask 077 has them closed. Not secret.
mounted=(containers/{gateway,postgres,s3} monitoring/{prometheus,statsd} monitoring/grafana/{provisioning,dashboards})
require_readable() {
  local closed
  closed=$(find "${mounted[@]}" ! -type l ! -perm -o=r)
  if [[ -n $closed ]]; then
    echo "Containers can't read ${closed%%$'\n'*}. \`make env\` lets them read what they mount; then try again." >&2
    exit 2
  fi
}

# What `make start` noted in its workspace, so that Prometheus misses services that are gone: now they are meant to be.
forget_start() {
  local workspace=${PROJECT_HOST_PATH-}
  if [[ -z $workspace && -f .state/compose.env ]]; then
    workspace=$(sed -n "s/^PROJECT_HOST_PATH='\(.*\)'$/\1/p" .state/compose.env)
  fi
  rm -f "${workspace:-.}/.state/metrics/workspace/stack.prom"
}

command=${1-}
if [[ $# -gt 0 ]]; then shift; fi
case $command in train | pipeline | auth | serve | mlflow | monitoring | airflow) require_readable ;; esac
case $command in
  import) stage --no-deps ingest ingest "$@" ;;
  train) stage train train "$@" ;;
  gate) stage --no-deps gate gate "$@" ;;
  predict) stage --no-deps predict predict "$@" ;;
  check | version) stage --no-deps "${1:?which stage: ingest, train or predict}" "$command" "$@" ;;
  pipeline) compose --profile stages up --abort-on-container-failure "$@" ;;
  auth) compose --profile stages up --detach --wait auth gateway "$@" ;;
  serve) compose --profile stages up --detach --wait --no-deps postgres redis auth serve gateway "$@" ;;
  mlflow) compose --profile tracking up --detach --wait mlflow "$@" ;;
  monitoring) compose --profile monitoring up --detach --wait --no-deps prometheus alertmanager alert-log node-exporter \
    pipeline-exporter statsd-exporter grafana "$@" ;;
  airflow) compose up --detach --wait "$@" ;;
  status) compose --profile '*' ps --all "$@" ;;
  logs) compose --profile '*' logs --tail 100 "$@" ;;
  down) compose --profile '*' down "$@" && forget_start ;;
  compose) compose "$@" ;;
  help | -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
