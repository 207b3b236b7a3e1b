/* The rules of the C interface that bindings rely on and do not show: life cycle, futures and their memory, misuse.
 *
 * Run by ../../clients.rs, also under valgrind: interface CLUSTER_FILE. Prints one line for each group of rules. What it uses of the
 * interface is declared here, as the documentation of FoundationDB's C API has it. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct FDB_future FDBFuture;
typedef struct FDB_database FDBDatabase;
typedef struct FDB_transaction FDBTransaction;
#pragma pack(push, 4)
typedef struct { const uint8_t *key; int key_length; const uint8_t *value; int value_length; } FDBKeyValue;
#pragma pack(pop)
typedef void (*FDBCallback)(FDBFuture *, void *);

int fdb_select_api_version_impl(int, int);
int fdb_get_max_api_version(void);
const char *fdb_get_client_version(void);
const char *fdb_get_error(int);
int fdb_error_predicate(int, int);
int fdb_network_set_option(int, const uint8_t *, int);
int fdb_setup_network(void);
int fdb_run_network(void);
int fdb_stop_network(void);
int fdb_add_network_thread_completion_hook(void (*)(void *), void *);
void fdb_future_cancel(FDBFuture *);
void fdb_future_release_memory(FDBFuture *);
void fdb_future_destroy(FDBFuture *);
int fdb_future_block_until_ready(FDBFuture *);
int fdb_future_is_ready(FDBFuture *);
int fdb_future_set_callback(FDBFuture *, FDBCallback, void *);
int fdb_future_get_error(FDBFuture *);
int fdb_future_get_int64(FDBFuture *, int64_t *);
int fdb_future_get_uint64(FDBFuture *, uint64_t *);
int fdb_future_get_key(FDBFuture *, const uint8_t **, int *);
int fdb_future_get_value(FDBFuture *, int *, const uint8_t **, int *);
int fdb_future_get_keyvalue_array(FDBFuture *, const FDBKeyValue **, int *, int *);
int fdb_create_database(const char *, FDBDatabase **);
int fdb_create_database_from_connection_string(const char *, FDBDatabase **);
void fdb_database_destroy(FDBDatabase *);
int fdb_database_set_option(FDBDatabase *, int, const uint8_t *, int);
int fdb_database_create_transaction(FDBDatabase *, FDBTransaction **);
FDBFuture *fdb_database_get_client_status(FDBDatabase *);
FDBFuture *fdb_database_get_server_protocol(FDBDatabase *, uint64_t);
double fdb_database_get_main_thread_busyness(FDBDatabase *);
FDBFuture *fdb_database_create_snapshot(FDBDatabase *, const uint8_t *, int, const uint8_t *, int);
int fdb_database_open_tenant(FDBDatabase *, const uint8_t *, int, void **);
void fdb_transaction_destroy(FDBTransaction *);
void fdb_transaction_cancel(FDBTransaction *);
void fdb_transaction_reset(FDBTransaction *);
int fdb_transaction_set_option(FDBTransaction *, int, const uint8_t *, int);
void fdb_transaction_set_read_version(FDBTransaction *, int64_t);
FDBFuture *fdb_transaction_get(FDBTransaction *, const uint8_t *, int, int);
FDBFuture *fdb_transaction_get_range(FDBTransaction *, const uint8_t *, int, int, int, const uint8_t *, int, int, int, int, int,
                                     int, int, int, int);
FDBFuture *fdb_transaction_get_mapped_range(FDBTransaction *, const uint8_t *, int, int, int, const uint8_t *, int, int, int,
                                            const uint8_t *, int, int, int, int, int, int, int);
void fdb_transaction_set(FDBTransaction *, const uint8_t *, int, const uint8_t *, int);
void fdb_transaction_clear_range(FDBTransaction *, const uint8_t *, int, const uint8_t *, int);
void fdb_transaction_atomic_op(FDBTransaction *, const uint8_t *, int, const uint8_t *, int, int);
FDBFuture *fdb_transaction_watch(FDBTransaction *, const uint8_t *, int);
FDBFuture *fdb_transaction_commit(FDBTransaction *);
FDBFuture *fdb_transaction_on_error(FDBTransaction *, int);
int fdb_transaction_get_committed_version(FDBTransaction *, int64_t *);
int fdb_transaction_add_conflict_range(FDBTransaction *, const uint8_t *, int, const uint8_t *, int, int);

#define EXPECT(found, wanted)                                                                                            \
    do {                                                                                                                 \
        long long f = (long long)(found), w = (long long)(wanted);                                                       \
        if (f != w) {                                                                                                    \
            fprintf(stderr, "line %d: %s is %lld, not %lld\n", __LINE__, #found, f, w);                                  \
            exit(1);                                                                                                     \
        }                                                                                                                \
    } while (0)
#define BYTES(text) (const uint8_t *)(text), (int)(sizeof(text) - 1)

/* Waits for a future, destroys it, and gives its error. */
static int end_of(FDBFuture *future) {
    EXPECT(fdb_future_block_until_ready(future), 0);
    int error = fdb_future_get_error(future);
    fdb_future_destroy(future);
    return error;
}

static FDBTransaction *begin(FDBDatabase *database) {
    FDBTransaction *transaction = NULL;
    EXPECT(fdb_database_create_transaction(database, &transaction), 0);
    return transaction;
}

static void *run(void *unused) {
    (void)unused;
    return (void *)(intptr_t)fdb_run_network();
}

static void count(FDBFuture *future, void *counter) {
    (void)future;
    __atomic_add_fetch((int *)counter, 1, __ATOMIC_SEQ_CST);
}

static void count_hook(void *counter) { __atomic_add_fetch((int *)counter, 1, __ATOMIC_SEQ_CST); }

struct inside { FDBFuture *other; int blocked_with; int done; };

/* On the network thread nobody may wait for what only that thread can complete. */
static void block_inside(FDBFuture *future, void *parameter) {
    struct inside *inside = parameter;
    inside->blocked_with = fdb_future_block_until_ready(inside->other);
    fdb_future_destroy(future); /* allowed in its own callback */
    __atomic_store_n(&inside->done, 1, __ATOMIC_SEQ_CST);
}

static void wait_for(int *flag, int value) {
    for (int i = 0; i < 3000 && __atomic_load_n(flag, __ATOMIC_SEQ_CST) != value; i++) usleep(10000);
    EXPECT(__atomic_load_n(flag, __ATOMIC_SEQ_CST), value);
}

int main(int argc, char **argv) {
    EXPECT(argc, 2);
    FDBDatabase *database = NULL, *nowhere = NULL, *wrong = NULL;

    /* Before the version is chosen. */
    EXPECT(fdb_get_max_api_version(), 800);
    EXPECT(strchr(fdb_get_client_version(), ',') != NULL, 1);
    EXPECT(fdb_setup_network(), 2200);
    EXPECT(fdb_select_api_version_impl(740, 730), 2202);
    EXPECT(fdb_select_api_version_impl(730, 900), 2203);
    EXPECT(fdb_select_api_version_impl(12, 730), 2203);
    EXPECT(fdb_select_api_version_impl(730, 730), 0);
    EXPECT(fdb_select_api_version_impl(730, 730), 2201);
    /* Before the network is set up. */
    EXPECT(fdb_create_database(argv[1], &database), 2008);
    EXPECT(fdb_run_network(), 2008);
    EXPECT(fdb_stop_network(), 2008);
    EXPECT(fdb_network_set_option(31337, NULL, 0), 2007);
    EXPECT(fdb_network_set_option(31, BYTES("four")), 2006);
    EXPECT(fdb_network_set_option(60, NULL, 0), 0);
    EXPECT(fdb_setup_network(), 0);
    EXPECT(fdb_setup_network(), 2009);
    int hooks = 0;
    EXPECT(fdb_add_network_thread_completion_hook(count_hook, &hooks), 0);
    /* Handles can be made before the network runs, and never wait. */
    EXPECT(fdb_create_database(argv[1], &database), 0);
    EXPECT(fdb_create_database_from_connection_string("far:away@127.0.0.1:1", &nowhere), 0);
    EXPECT(fdb_create_database_from_connection_string("nonsense", &wrong), 0);
    pthread_t network;
    EXPECT(pthread_create(&network, NULL, run, NULL), 0);
    puts("ok life_cycle");

    /* Results, and their memory. */
    FDBTransaction *tr = begin(database);
    fdb_transaction_clear_range(tr, BYTES("c/"), BYTES("c0"));
    fdb_transaction_set(tr, BYTES("c/a"), BYTES("one"));
    fdb_transaction_set(tr, BYTES("c/b"), BYTES(""));
    fdb_transaction_set(tr, BYTES("c/c"), BYTES("three"));
    EXPECT(end_of(fdb_transaction_commit(tr)), 0);
    int64_t version = 0;
    EXPECT(fdb_transaction_get_committed_version(tr, &version), 0);
    EXPECT(version > 5000000, 1);
    fdb_transaction_reset(tr);
    FDBFuture *future = fdb_transaction_get(tr, BYTES("c/a"), 0);
    EXPECT(fdb_future_block_until_ready(future), 0);
    int present = 7, length = 7;
    const uint8_t *bytes = NULL;
    EXPECT(fdb_future_get_value(future, &present, &bytes, &length), 0);
    EXPECT(present == 1 && length == 3 && memcmp(bytes, "one", 3) == 0, 1);
    int64_t number = 42;
    EXPECT(fdb_future_get_int64(future, &number), 2000);
    EXPECT(number, 42);
    fdb_future_release_memory(future);
    EXPECT(fdb_future_get_value(future, &present, &bytes, &length), 1102);
    EXPECT(fdb_future_get_error(future), 0);
    fdb_future_destroy(future);
    future = fdb_transaction_get(tr, BYTES("c/absent"), 1);
    EXPECT(fdb_future_block_until_ready(future), 0);
    bytes = (const uint8_t *)argv[0];
    EXPECT(fdb_future_get_value(future, &present, &bytes, &length), 0);
    EXPECT(present == 0 && bytes == (const uint8_t *)argv[0], 1);
    fdb_future_destroy(future);
    future = fdb_transaction_get_range(tr, BYTES("c/"), 0, 1, BYTES("c0"), 0, 1, 0, 0, -2, 0, 0, 1);
    EXPECT(fdb_future_block_until_ready(future), 0);
    const FDBKeyValue *rows = NULL;
    int rows_count = 0, more = 7;
    EXPECT(fdb_future_get_keyvalue_array(future, &rows, &rows_count, &more), 0);
    EXPECT(rows_count == 3 && more == 0, 1);
    EXPECT(rows[2].value_length == 3 && memcmp(rows[2].value, "one", 3) == 0, 1);
    EXPECT(rows[1].value_length, 0);
    fdb_future_destroy(future);
    puts("ok results_and_memory");

    /* Futures that are not complete. */
    FDBTransaction *far = begin(nowhere);
    future = fdb_transaction_get(far, BYTES("k"), 0);
    EXPECT(fdb_future_is_ready(future), 0);
    EXPECT(fdb_future_get_error(future), 2015);
    EXPECT(fdb_future_get_value(future, &present, &bytes, &length), 2015);
    int called = 0;
    EXPECT(fdb_future_set_callback(future, count, &called), 0);
    EXPECT(fdb_future_set_callback(future, count, &called), 0);
    fdb_future_cancel(future);
    EXPECT(end_of(future), 1101);
    wait_for(&called, 2);
    future = fdb_transaction_get(far, BYTES("k"), 0);
    EXPECT(fdb_future_set_callback(future, count, &called), 0);
    fdb_future_destroy(future);
    wait_for(&called, 3);
    future = fdb_transaction_get(far, BYTES("k"), 0);
    fdb_transaction_reset(far);
    EXPECT(end_of(future), 1025);
    future = fdb_transaction_get(far, BYTES("k"), 0);
    fdb_transaction_destroy(far);
    EXPECT(end_of(future), 1025);
    struct inside inside = { NULL, 0, 0 };
    far = begin(nowhere);
    inside.other = fdb_transaction_get(far, BYTES("k"), 0);
    /* Cancelled by this thread, but its callback is called on the network's. */
    future = fdb_transaction_get(far, BYTES("k"), 0);
    EXPECT(fdb_future_set_callback(future, block_inside, &inside), 0);
    fdb_future_cancel(future);
    wait_for(&inside.done, 1);
    EXPECT(inside.blocked_with, 2026);
    fdb_future_destroy(inside.other);
    puts("ok futures_that_are_not_complete");

    /* Timeouts, cancelling, errors that are found out later. */
    uint8_t milliseconds[8] = { 100 };
    EXPECT(fdb_transaction_set_option(far, 500, milliseconds, 8), 0);
    EXPECT(end_of(fdb_transaction_get(far, BYTES("k"), 0)), 1031);
    EXPECT(end_of(fdb_transaction_on_error(far, 1020)), 1031);
    fdb_transaction_reset(far);
    fdb_transaction_cancel(far);
    EXPECT(end_of(fdb_transaction_get(far, BYTES("k"), 0)), 1025);
    EXPECT(end_of(fdb_transaction_commit(far)), 1025);
    fdb_transaction_destroy(far);
    FDBTransaction *broken = begin(wrong);
    fdb_transaction_set(broken, BYTES("k"), BYTES("v"));
    EXPECT(end_of(fdb_transaction_commit(broken)), 2104);
    EXPECT(end_of(fdb_transaction_on_error(broken, 2104)), 2104);
    fdb_transaction_destroy(broken);
    fdb_transaction_reset(tr);
    fdb_transaction_atomic_op(tr, BYTES("k"), BYTES("v"), 1);
    EXPECT(end_of(fdb_transaction_get(tr, BYTES("k"), 0)), 2018);
    EXPECT(end_of(fdb_transaction_commit(tr)), 2018);
    EXPECT(end_of(fdb_transaction_on_error(tr, 1020)), 0);
    EXPECT(end_of(fdb_transaction_get(tr, BYTES("k"), 0)), 0);
    fdb_transaction_reset(tr);
    EXPECT(end_of(fdb_transaction_on_error(tr, 0)), 2000);
    EXPECT(end_of(fdb_transaction_on_error(tr, 1042)), 1025);
    fdb_transaction_reset(tr);
    EXPECT(end_of(fdb_transaction_on_error(tr, 1042)), 0);
    EXPECT(end_of(fdb_transaction_on_error(tr, 1234567)), 1234567);
    EXPECT(end_of(fdb_transaction_get(tr, BYTES("k"), 0)), 1025);
    fdb_transaction_reset(tr);
    EXPECT(fdb_transaction_set_option(tr, 31337, NULL, 0), 2007);
    EXPECT(fdb_transaction_set_option(tr, 500, milliseconds, 4), 2006);
    EXPECT(fdb_transaction_set_option(tr, 503, milliseconds, 4), 0);
    EXPECT(end_of(fdb_transaction_get(tr, BYTES("k"), 0)), 2006);
    fdb_transaction_reset(tr);
    EXPECT(fdb_transaction_add_conflict_range(tr, BYTES("b"), BYTES("a"), 0), 2005);
    EXPECT(fdb_transaction_add_conflict_range(tr, BYTES("a"), BYTES("b"), 2), 2000);
    EXPECT(fdb_transaction_add_conflict_range(tr, BYTES("a"), BYTES("b"), 1), 0);
    fdb_transaction_set_read_version(tr, 0);
    EXPECT(end_of(fdb_transaction_get(tr, BYTES("k"), 0)), 2011);
    puts("ok errors_found_out_later");

    /* Misuse while a commit is under way: it fails, and only a reset helps. */
    far = begin(nowhere);
    fdb_transaction_set(far, BYTES("k"), BYTES("v"));
    future = fdb_transaction_commit(far);
    EXPECT(fdb_future_is_ready(future), 0);
    fdb_transaction_set(far, BYTES("k"), BYTES("w"));
    EXPECT(end_of(future), 2017);
    EXPECT(end_of(fdb_transaction_on_error(far, 1020)), 2017);
    fdb_transaction_reset(far);
    fdb_transaction_set(far, BYTES("k"), BYTES("v"));
    EXPECT(fdb_transaction_set_option(far, 701, NULL, 0), 0);
    future = fdb_transaction_commit(far);
    fdb_transaction_set(far, BYTES("k"), BYTES("w"));
    EXPECT(fdb_future_is_ready(future), 0);
    fdb_transaction_destroy(far);
    EXPECT(end_of(future), 1025);
    puts("ok misuse");

    /* What there is not, and small things. */
    EXPECT(end_of(fdb_database_create_snapshot(database, BYTES("u"), BYTES("c"))), 2108);
    fdb_transaction_reset(tr);
    EXPECT(end_of(fdb_transaction_get_mapped_range(tr, BYTES("a"), 0, 1, BYTES("b"), 0, 1, BYTES("m"), 0, 0, -2, 0, 0, 0)), 2043);
    EXPECT(end_of(fdb_transaction_get_mapped_range(tr, BYTES("a"), 0, 1, BYTES("b"), 0, 1, BYTES("m"), 0, 0, -2, 0, 1, 0)), 2108);
    EXPECT(fdb_database_open_tenant(database, BYTES("t"), NULL), 2108);
    EXPECT(strlen(fdb_get_error(1020)) > 0 && strlen(fdb_get_error(-77)) > 0, 1);
    EXPECT(fdb_error_predicate(50000, 1020) && fdb_error_predicate(50001, 1021) && !fdb_error_predicate(50002, 1021), 1);
    EXPECT(fdb_error_predicate(1, 1020), 0);
    EXPECT(fdb_database_set_option(database, 20, (const uint8_t *)"\x10\0\0\0\0\0\0\0", 8), 0);
    EXPECT(fdb_database_set_option(database, 20, (const uint8_t *)"\xff\xff\xff\xff\xff\0\0\0", 8), 2006);
    EXPECT(fdb_database_get_main_thread_busyness(database) <= 1.0, 1);
    future = fdb_database_get_client_status(database);
    EXPECT(fdb_future_block_until_ready(future), 0);
    EXPECT(fdb_future_get_key(future, &bytes, &length), 0);
    EXPECT(bytes[0], '{');
    fdb_future_destroy(future);
    uint64_t protocol = 0;
    future = fdb_database_get_server_protocol(database, 0);
    EXPECT(fdb_future_block_until_ready(future), 0);
    EXPECT(fdb_future_get_uint64(future, &protocol), 0);
    EXPECT(protocol > 0, 1);
    fdb_future_destroy(future);
    /* A result and an armed watch outlive the handles. */
    fdb_transaction_reset(tr);
    FDBFuture *watch = fdb_transaction_watch(tr, BYTES("c/a"));
    future = fdb_transaction_get(tr, BYTES("c/a"), 0);
    EXPECT(end_of(fdb_transaction_commit(tr)), 0);
    fdb_transaction_destroy(tr);
    tr = begin(database);
    fdb_database_destroy(database);
    EXPECT(fdb_future_get_value(future, &present, &bytes, &length), 0);
    EXPECT(memcmp(bytes, "one", 3), 0);
    fdb_future_destroy(future);
    EXPECT(fdb_future_is_ready(watch), 0);
    fdb_transaction_set(tr, BYTES("c/a"), BYTES("two"));
    EXPECT(end_of(fdb_transaction_commit(tr)), 0);
    EXPECT(end_of(watch), 0);
    puts("ok small_things");

    /* The end, with work pending. */
    far = begin(nowhere);
    future = fdb_transaction_get(far, BYTES("k"), 0);
    EXPECT(fdb_stop_network(), 0);
    void *result = NULL;
    EXPECT(pthread_join(network, &result), 0);
    EXPECT((intptr_t)result, 0);
    EXPECT(hooks, 1);
    EXPECT(end_of(future), 1101);
    EXPECT(end_of(fdb_transaction_get(far, BYTES("k"), 0)), 1101);
    EXPECT(fdb_run_network(), 2025);
    EXPECT(fdb_setup_network(), 2009);
    fdb_transaction_destroy(far);
    fdb_transaction_destroy(tr);
    fdb_database_destroy(nowhere);
    fdb_database_destroy(wrong);
    puts("ok the_end");
    return 0;
}
