#!/bin/sh
# The image runs this once, as a superuser, when the data directory is empty.
set -eu
OWNER_PASSWORD=$(cat /run/secrets/owner_password)
APPLICATION_PASSWORD=$(cat /run/secrets/application_password)
export OWNER_PASSWORD APPLICATION_PASSWORD
psql --username "$POSTGRES_USER" --dbname postgres --quiet --set ON_ERROR_STOP=1 \
  --file /deploy/postgresql/roles.sql
