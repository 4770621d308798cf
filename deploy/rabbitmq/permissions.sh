#!/bin/sh
# Makes the virtual host and the user of the service, with the rights that it needs and no others.
# It may be run again, to mend rights or to change the password. Run it where `rabbitmqctl` reaches
# the broker:
#
#   PASSWORD_FILE=secrets/broker_password sh deploy/rabbitmq/permissions.sh
#
# Other names: VHOST, BROKER_USER. Another node: RABBITMQ_NODENAME.
set -eu

VHOST=${VHOST:-orderkeep}
BROKER_USER=${BROKER_USER:-orderkeep}
: "${PASSWORD_FILE:?names the file that holds the password}"

# The queues of docs/reference/messages.md, and beside each the one that takes what passes its limit.
QUEUES='order\.timeout\.queue|order\.timeout\.dlq|order\.outbox|cart-sync|payment\.success\.notify|payment\.opened\.notify|payment\.order\.events|payment\.refund\.request|payment\.refund\.result'
OURS="($QUEUES)(\.dead)?|order\.timeout\.hold\.[0-9]+"
EXCHANGES='order\.events|order\.timeout\.delayed'

# To make queues and exchanges that are missing, and to bind queues to the exchanges.
CONFIGURE="^($OURS|$EXCHANGES)\$"
# To publish: what goes straight to a queue goes through the default exchange, whose name in rights
# is amq.default. To bind a queue one must be allowed to write to it.
WRITE="^($OURS|$EXCHANGES|amq\.default)\$"
# To consume; and to bind to an exchange one must be allowed to read from it.
READ="^($OURS|$EXCHANGES)\$"

if ! rabbitmqctl --quiet list_vhosts name --no-table-headers | grep -qxF -- "$VHOST"; then
  rabbitmqctl --quiet add_vhost "$VHOST"
fi
# The password goes through the standard input, where no list of processes shows it.
if rabbitmqctl --quiet list_users --no-table-headers | cut -f 1 | grep -qxF -- "$BROKER_USER"; then
  rabbitmqctl --quiet change_password "$BROKER_USER" < "$PASSWORD_FILE"
else
  rabbitmqctl --quiet add_user "$BROKER_USER" < "$PASSWORD_FILE"
fi
rabbitmqctl --quiet set_permissions --vhost "$VHOST" "$BROKER_USER" "$CONFIGURE" "$WRITE" "$READ"
