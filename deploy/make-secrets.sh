#!/bin/sh
# Draws the passwords and keys of a production set-up, each in a file of its own, and writes the
# addresses that they stand in. What is there stays, so it may be run again.
#
#   sh deploy/make-secrets.sh [FOLDER]
#
# The servers are those of compose.yaml, unless DATABASE_HOST (host:port) and BROKER_HOSTS (several
# with spaces between) say otherwise; their names likewise: DATABASE, OWNER, APPLICATION, VHOST,
# BROKER_USER.
#
# Nobody but you can enter the folder. Inside it the files are readable: in a container they are
# read by users that this machine does not have.
set -eu

FOLDER=${1:-secrets}
mkdir -p "$FOLDER"
chmod 700 "$FOLDER"

# 256 bits. Hexadecimal digits mean nothing in a URL, in SQL and in a shell.
draw() {
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

keep() {
  if [ ! -s "$FOLDER/$1" ]; then
    printf '%s\n' "$2" > "$FOLDER/$1"
    chmod 644 "$FOLDER/$1"
  fi
}

for name in postgres_password owner_password application_password broker_password \
  erlang_cookie jwt_secret; do
  keep "$name" "$(draw)"
done

owner_password=$(cat "$FOLDER/owner_password")
application_password=$(cat "$FOLDER/application_password")
broker_password=$(cat "$FOLDER/broker_password")

database="${DATABASE_HOST:-postgresql:5432}/${DATABASE:-orderkeep}"
keep migration_database_url "postgresql://${OWNER:-orderkeep_owner}:$owner_password@$database"
keep database_url "postgresql://${APPLICATION:-orderkeep}:$application_password@$database"

broker_url=
for host in ${BROKER_HOSTS:-rabbitmq-1:5672 rabbitmq-2:5672 rabbitmq-3:5672}; do
  url="amqp://${BROKER_USER:-orderkeep}:$broker_password@$host/${VHOST:-orderkeep}"
  broker_url="$broker_url${broker_url:+,}$url"
done
keep broker_url "$broker_url"
