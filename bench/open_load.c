/* The load generator that does not wait: orders over HTTP at moments set beforehand.
 *
 *   open_load HOST PORT REQUESTS_PER_S DURATION_S CONNECTION_COUNT_MAX < requests > outcomes
 *
 * A request is a head, the number of the arrival, and a tail; heads and tails are taken in turn.
 * First come how many heads there are, then each, then the same of the tails. A text is a number
 * and so many bytes; numbers have 64 bits in network order.
 *
 * An arrival takes a connection that is free, else opens one, else it is given up. Arrivals that
 * fall due between two looks are sent together, and answers are read together. Written is of each
 * arrival, when all are answered or nobody waits any longer, in the machine's order: milliseconds
 * from when it was due to its answer (float), the answer's status (16 bits; 0 is none), and two
 * bytes, each 1 or 0: whether it was sent late, and whether it was given up (1) or, of an answer,
 * whether it says when to come again (2).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* An answer, and a request, are far smaller. */
enum { BUFFER_BYTES = 16384, EVENT_COUNT_MAX = 256 };

/* By so much at most an answer seems later than it is. */
static const double LOOK_AGAIN_S = 0.002;
/* Sent later than that, the generator is slow. */
static const double LATE_S = 0.1;
/* Whoever has no answer by then has none. */
static const double ANSWER_S_MAX = 30.0;

enum { GIVEN_UP = 1, SAYS_WHEN_AGAIN = 2 };

typedef struct {
  float took_ms;
  uint16_t status;
  uint8_t is_late;
  uint8_t remark;
} outcome_t;

typedef struct {
  char *bytes;
  size_t count;
} text_t;

typedef struct {
  text_t *items;
  size_t count;
} texts_t;

/* One connection, with at most one request under way. */
typedef struct {
  int socket;
  int is_open;    /* or has failed to be, which sending tells */
  int64_t number; /* of the arrival under way; -1 while there is none */
  size_t received_count;
  char received[BUFFER_BYTES + 1];
} connection_t;

static struct sockaddr_in address;
static texts_t heads, tails;
static outcome_t *outcomes;
static connection_t *connections;
static int64_t *free_indexes; /* the last one that became free goes first */
static int64_t free_count, under_way_count;
static double begun_at_s, requests_per_s;
static int poll_fd;

static void fail(const char *why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

static double now_s(void) {
  struct timespec moment;
  clock_gettime(CLOCK_MONOTONIC, &moment);
  return moment.tv_sec + moment.tv_nsec / 1e9;
}

static uint64_t read_number(void) {
  uint64_t number;
  if (fread(&number, sizeof number, 1, stdin) != 1) fail("the requests are cut off");
  return be64toh(number);
}

static texts_t read_texts(void) {
  texts_t texts = {NULL, read_number()};
  texts.items = calloc(texts.count, sizeof *texts.items);
  for (size_t number = 0; number < texts.count; number++) {
    text_t *text = &texts.items[number];
    text->count = read_number();
    if (text->count > BUFFER_BYTES / 2) fail("a request is too long");
    text->bytes = malloc(text->count);
    if (fread(text->bytes, 1, text->count, stdin) != text->count)
      fail("the requests are cut off");
  }
  return texts;
}

/* What was under way is never answered; its place is free for a new connection. */
static void end(connection_t *connection) {
  close(connection->socket);
  connection->socket = -1;
  if (connection->number >= 0) {
    connection->number = -1;
    under_way_count--;
    free_indexes[free_count++] = connection - connections;
  }
}

static void watch(connection_t *connection, uint32_t events, int operation) {
  struct epoll_event event = {.events = events, .data.ptr = connection};
  if (epoll_ctl(poll_fd, operation, connection->socket, &event)) fail("no events");
}

static void open_one(connection_t *connection) {
  int yes = 1;
  connection->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (connection->socket < 0) fail("no socket");
  setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  connection->is_open = 0;
  if (connect(connection->socket, (struct sockaddr *)&address, sizeof address) &&
      errno != EINPROGRESS)
    end(connection);
  else
    watch(connection, EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_request(connection_t *connection) {
  static char request[BUFFER_BYTES + 32];
  const text_t *head = &heads.items[connection->number % heads.count];
  const text_t *tail = &tails.items[connection->number % tails.count];
  char *end_of_request = mempcpy(request, head->bytes, head->count);
  end_of_request += sprintf(end_of_request, "%lld", (long long)connection->number);
  end_of_request = mempcpy(end_of_request, tail->bytes, tail->count);
  ssize_t sent = send(connection->socket, request, end_of_request - request, MSG_NOSIGNAL);
  if (sent < 0)
    end(connection);
  /* The kernel takes far more than one request for a connection on which nothing else waits. */
  else if (sent != end_of_request - request)
    fail("a request was cut in two");
}

static void arrive(int64_t number, double at_s) {
  connection_t *connection;
  outcomes[number].is_late = at_s - (begun_at_s + number / requests_per_s) > LATE_S;
  if (!free_count) {
    outcomes[number].remark = GIVEN_UP;
    return;
  }
  connection = &connections[free_indexes[--free_count]];
  connection->number = number;
  connection->received_count = 0;
  under_way_count++;
  if (connection->socket < 0)
    open_one(connection);
  else
    send_request(connection);
}

/* Whether all of an answer is there; if so, its outcome is noted. */
static int note_answer(connection_t *connection, double at_s) {
  char *received = connection->received, *body, *length;
  received[connection->received_count] = 0;
  body = strstr(received, "\r\n\r\n");
  if (!body) return 0;
  *body = 0;
  length = strcasestr(received, "\r\ncontent-length:");
  if (!length || connection->received_count < 12) fail("an answer cannot be read");
  if (received + connection->received_count - (body + 4) < atol(length + 17)) {
    *body = '\r';
    return 0;
  }
  outcome_t *outcome = &outcomes[connection->number];
  outcome->took_ms = 1000 * (at_s - (begun_at_s + connection->number / requests_per_s));
  outcome->status = atoi(received + 9);
  if (strcasestr(received, "\r\nretry-after:")) outcome->remark = SAYS_WHEN_AGAIN;
  return 1;
}

static void take(connection_t *connection) {
  ssize_t count;
  if (!connection->is_open) {
    connection->is_open = 1;
    watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    send_request(connection);
    return;
  }
  count = recv(connection->socket, connection->received + connection->received_count,
               BUFFER_BYTES - connection->received_count, 0);
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0) {
    /* One that is free stays among the free, and is opened anew. */
    end(connection);
    return;
  }
  connection->received_count += count;
  if (connection->number < 0) fail("an answer that nobody asked for");
  if (!note_answer(connection, now_s())) {
    if (connection->received_count == BUFFER_BYTES) fail("an answer is too long");
    return;
  }
  connection->number = -1;
  under_way_count--;
  free_indexes[free_count++] = connection - connections;
}

/* Take what has come, and rest through the time that is left: many are read in one look. */
static void read_until(double until_s) {
  struct epoll_event events[EVENT_COUNT_MAX];
  int count;
  do {
    count = epoll_wait(poll_fd, events, EVENT_COUNT_MAX, 0);
    for (int number = 0; number < count; number++) take(events[number].data.ptr);
  } while (count == EVENT_COUNT_MAX);
  double left_s = until_s - now_s();
  if (left_s > 0) usleep(left_s * 1e6);
}

int main(int argument_count, char **arguments) {
  if (argument_count != 6) fail("five arguments are expected");
  address.sin_family = AF_INET;
  address.sin_port = htons(atoi(arguments[2]));
  if (inet_pton(AF_INET, arguments[1], &address.sin_addr) != 1) fail("no address");
  requests_per_s = atof(arguments[3]);
  int64_t count = requests_per_s * atof(arguments[4]);
  int64_t number = 0;
  int64_t connection_count_max = atoll(arguments[5]);
  heads = read_texts();
  tails = read_texts();
  outcomes = calloc(count, sizeof *outcomes);
  connections = calloc(connection_count_max, sizeof *connections);
  free_indexes = calloc(connection_count_max, sizeof *free_indexes);
  for (int64_t one = connection_count_max - 1; one >= 0; one--) {
    connections[one].socket = -1;
    connections[one].number = -1;
    free_indexes[free_count++] = one;
  }
  poll_fd = epoll_create1(0);
  begun_at_s = now_s();
  while (number < count) {
    double at_s = now_s();
    int64_t due_count = (at_s - begun_at_s) * requests_per_s + 1;
    for (; number < due_count && number < count; number++) arrive(number, at_s);
    read_until(at_s + LOOK_AGAIN_S);
  }
  double give_up_at_s = now_s() + ANSWER_S_MAX;
  while (under_way_count && now_s() < give_up_at_s) read_until(now_s() + LOOK_AGAIN_S);
  if (fwrite(outcomes, sizeof *outcomes, count, stdout) != (size_t)count) fail("no room");
  return 0;
}
