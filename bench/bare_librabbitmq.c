/* The limit for dispatch and consumption in C: librabbitmq with nothing around it.
 *
 *   bare_librabbitmq publish HOST PORT USER PASSWORD VHOST OUTSTANDING < messages
 *   bare_librabbitmq consume HOST PORT USER PASSWORD VHOST QUEUE COUNT PREFETCH ACKNOWLEDGED_TOGETHER
 *
 * The publisher reads all messages before its clock runs: first how many, then of each the texts
 * exchange, routing key, body, message id and type; the numbers timestamp and expiration in ms (0
 * is none); and how many headers it has, of each its name, whether it is a number (1) or a text
 * (0), and its value. A text is a number and so many bytes; numbers have 64 bits in network order.
 * It keeps so many confirms outstanding. Both write the seconds they took on standard output.
 */
#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHANNEL = 1, FRAME_SIZE_MAX = 131072, PERSISTENT = 2 };

typedef struct {
  amqp_bytes_t exchange, routing_key, body;
  amqp_basic_properties_t properties;
  char expiration[24];
} message_t;

static void give_up(const char *why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

static void check_reply(amqp_rpc_reply_t reply, const char *what) {
  if (reply.reply_type != AMQP_RESPONSE_NORMAL) give_up(what);
}

static void check_status(int status, const char *what) {
  if (status != AMQP_STATUS_OK) {
    fprintf(stderr, "%s: %s\n", what, amqp_error_string2(status));
    exit(1);
  }
}

static double now_s(void) {
  struct timespec moment;
  clock_gettime(CLOCK_MONOTONIC, &moment);
  return moment.tv_sec + moment.tv_nsec / 1e9;
}

static amqp_connection_state_t connect_to(char **where) {
  amqp_connection_state_t connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  if (!socket || amqp_socket_open(socket, where[0], atoi(where[1]))) give_up("no connection");
  check_reply(amqp_login(connection, where[4], 0, FRAME_SIZE_MAX, 0, AMQP_SASL_METHOD_PLAIN,
                         where[2], where[3]),
              "the broker does not let us in");
  amqp_channel_open(connection, CHANNEL);
  check_reply(amqp_get_rpc_reply(connection), "no channel");
  return connection;
}

static void finish(amqp_connection_state_t connection) {
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
}

static uint64_t read_number(void) {
  uint32_t halves[2];
  if (fread(halves, sizeof halves, 1, stdin) != 1) give_up("a message is cut off");
  return ((uint64_t)ntohl(halves[0]) << 32) | ntohl(halves[1]);
}

static amqp_bytes_t read_text(void) {
  amqp_bytes_t text;
  text.len = read_number();
  text.bytes = malloc(text.len + 1);
  if (!text.bytes || (text.len && fread(text.bytes, text.len, 1, stdin) != 1))
    give_up("a message is cut off");
  return text;
}

static amqp_table_t read_headers(void) {
  amqp_table_t headers;
  headers.num_entries = read_number();
  headers.entries = calloc(headers.num_entries + 1, sizeof *headers.entries);
  for (int i = 0; i < headers.num_entries; i++) {
    amqp_table_entry_t *entry = &headers.entries[i];
    entry->key = read_text();
    if (read_number()) {
      entry->value.kind = AMQP_FIELD_KIND_I64;
      entry->value.value.i64 = read_number();
    } else {
      entry->value.kind = AMQP_FIELD_KIND_UTF8;
      entry->value.value.bytes = read_text();
    }
  }
  return headers;
}

static message_t *read_messages(size_t *count) {
  *count = read_number();
  message_t *messages = calloc(*count ? *count : 1, sizeof *messages);
  for (size_t i = 0; i < *count; i++) {
    message_t *message = &messages[i];
    amqp_basic_properties_t *properties = &message->properties;
    message->exchange = read_text();
    message->routing_key = read_text();
    message->body = read_text();
    properties->message_id = read_text();
    properties->type = read_text();
    properties->timestamp = read_number();
    uint64_t expiration_ms = read_number();
    properties->headers = read_headers();
    properties->content_type = amqp_cstring_bytes("application/json");
    properties->delivery_mode = PERSISTENT;
    properties->_flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG |
                         AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_TYPE_FLAG |
                         AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG;
    if (expiration_ms) {
      snprintf(message->expiration, sizeof message->expiration, "%llu",
               (unsigned long long)expiration_ms);
      properties->expiration = amqp_cstring_bytes(message->expiration);
      properties->_flags |= AMQP_BASIC_EXPIRATION_FLAG;
    }
  }
  return messages;
}

/* Takes one confirm and returns up to which number all is settled. The broker confirms messages of
 * several queues out of order: each is noted, and the lowest open number moves on. */
static uint64_t take_confirm(amqp_connection_state_t connection, char *is_settled,
                             uint64_t lowest_open, uint64_t *open_count) {
  amqp_frame_t frame;
  amqp_maybe_release_buffers(connection);
  check_status(amqp_simple_wait_frame(connection, &frame), "no confirm");
  if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
    give_up("the broker refused or returned a message");
  amqp_basic_ack_t *ack = frame.payload.method.decoded;
  uint64_t first = ack->multiple ? lowest_open : ack->delivery_tag;
  for (uint64_t tag = first; tag <= ack->delivery_tag; tag++)
    if (!is_settled[tag]) {
      is_settled[tag] = 1;
      (*open_count)--;
    }
  while (is_settled[lowest_open]) lowest_open++;
  return lowest_open;
}

static double publish(char **where, uint64_t outstanding_max) {
  size_t count;
  message_t *messages = read_messages(&count);
  amqp_connection_state_t connection = connect_to(where);
  amqp_confirm_select(connection, CHANNEL);
  check_reply(amqp_get_rpc_reply(connection), "no confirms");
  /* Numbers begin with 1; the one behind the last is never settled. */
  char *is_settled = calloc(count + 2, 1);
  uint64_t lowest_open = 1, open_count = 0;
  size_t sent_count = 0;
  double started_s = now_s();
  while (sent_count < count || open_count) {
    while (sent_count < count && open_count < outstanding_max) {
      message_t *message = &messages[sent_count++];
      open_count++;
      check_status(amqp_basic_publish(connection, CHANNEL, message->exchange, message->routing_key,
                                      1, 0, &message->properties, message->body),
                   "cannot publish");
    }
    lowest_open = take_confirm(connection, is_settled, lowest_open, &open_count);
  }
  double elapsed_s = now_s() - started_s;
  finish(connection);
  return elapsed_s;
}

static double consume(char **where, char *queue, uint64_t count, uint16_t prefetch,
                      uint64_t acknowledged_together) {
  amqp_connection_state_t connection = connect_to(where);
  amqp_basic_qos(connection, CHANNEL, 0, prefetch, 0);
  check_reply(amqp_get_rpc_reply(connection), "no prefetch");
  double started_s = now_s();
  amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0,
                     amqp_empty_table);
  check_reply(amqp_get_rpc_reply(connection), "cannot consume");
  for (uint64_t received = 1; received <= count; received++) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(connection);
    check_reply(amqp_consume_message(connection, &envelope, NULL, 0), "no message");
    if (received % acknowledged_together == 0 || received == count)
      check_status(amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 1),
                   "cannot acknowledge");
    amqp_destroy_envelope(&envelope);
  }
  double elapsed_s = now_s() - started_s;
  finish(connection);
  return elapsed_s;
}

int main(int argc, char **argv) {
  if (argc == 8 && !strcmp(argv[1], "publish"))
    printf("%.6f\n", publish(argv + 2, strtoull(argv[7], NULL, 10)));
  else if (argc == 11 && !strcmp(argv[1], "consume"))
    printf("%.6f\n", consume(argv + 2, argv[7], strtoull(argv[8], NULL, 10),
                             (uint16_t)atoi(argv[9]), strtoull(argv[10], NULL, 10)));
  else
    give_up("what to do is said at the top of bench/bare_librabbitmq.c");
  return 0;
}
