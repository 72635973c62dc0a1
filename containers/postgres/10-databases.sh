#!/bin/sh
# A database with a user of its own for each program that keeps something here. Runs once, on an empty volume.
set -eu

for name in airflow mlflow auth; do
  variable=$(printf '%s_DB_PASSWORD' "$name" | tr '[:lower:]' '[:upper:]')
  # \getenv: no password is an argument of a program. A quoted here-document: psql substitutes, not the shell.
  psql --set ON_ERROR_STOP=1 --set name="$name" --set variable="$variable" --username postgres --dbname postgres <<'SQL'
\getenv password :variable
CREATE USER :"name" PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done
