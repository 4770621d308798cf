#!/bin/sh
# Runs `orderkeep verify` and `orderkeep doctor`, and writes how they ended where the node exporter's
# textfile collector reads it: for a timer, each half hour, with the settings of the service.
#
#   sh deploy/prometheus/checks.sh /var/lib/node_exporter/orderkeep.prom
#
# What they printed goes to standard output, so the timer's journal has it.
set -eu

FILE=${1:?say which file to write}

verify=0
orderkeep verify || verify=$?
doctor=0
orderkeep doctor || doctor=$?

# Readers see the old file or the new one, never half of one.
cat > "$FILE.new" <<METRICS
# HELP orderkeep_verify_exit_code How the last verify ended: 0 all holds, 1 a breach.
# TYPE orderkeep_verify_exit_code gauge
orderkeep_verify_exit_code $verify
# HELP orderkeep_doctor_exit_code How the last doctor ended: 0 nothing is wrong, 1 something is.
# TYPE orderkeep_doctor_exit_code gauge
orderkeep_doctor_exit_code $doctor
# HELP orderkeep_checks_ended_seconds When both had last been run, in seconds since 1970.
# TYPE orderkeep_checks_ended_seconds gauge
orderkeep_checks_ended_seconds $(date +%s)
METRICS
mv "$FILE.new" "$FILE"
