#!/bin/sh
# Runs a command with the cookie that all nodes share: it comes as a secret, and Erlang takes it only
# from a file that nobody else may read.
set -eu
install -m 400 -o rabbitmq -g rabbitmq /run/secrets/erlang_cookie /var/lib/rabbitmq/.erlang.cookie
exec "$@"
