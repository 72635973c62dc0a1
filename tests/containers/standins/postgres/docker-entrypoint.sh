#!/usr/bin/env bash
# What the official image's entry point does, as far as this project uses it: an empty data folder becomes a database
# cluster with POSTGRES_USER and POSTGRES_DB, and the scripts of /docker-entrypoint-initdb.d run once.
set -euo pipefail

export POSTGRES_USER=${POSTGRES_USER:-postgres}
export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}

first_start() {
  local script
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  # shellcheck disable=SC2086 # several options in one variable, as in the official image
  initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" \
    --pwfile=<(printf '%s\n' "${POSTGRES_PASSWORD:?must be set}") ${POSTGRES_INITDB_ARGS:-}
  printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
  # On its socket only, so that nobody takes the half-made database for a ready one.
  pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses=''" --wait start
  if [[ $POSTGRES_DB != postgres ]]; then
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  fi
  for script in /docker-entrypoint-initdb.d/*; do
    case $script in
      *.sh) if [[ -x $script ]]; then "$script"; else . "$script"; fi ;;
      *.sql) psql --no-psqlrc --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$script" ;;
    esac
  done
  pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
}

if [[ ${1-} == -* ]]; then
  set -- postgres "$@"
fi
if [[ ${1-} == postgres ]]; then
  [[ -s $PGDATA/PG_VERSION ]] || first_start
  set -- "$@" -c listen_addresses='*'
fi
exec "$@"
