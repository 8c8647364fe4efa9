// Accounts per user: what is charged, refused, given back and forgotten.
#include "quota.h"

#include <criterion/criterion.h>
#include <pthread.h>

static const uint64_t MS = 1000000, SECOND = 1000000000; // ns

static struct gd_quota *quota;
static struct gd_error error;

static void set_up(void) {
    static const struct gd_quota_limits limits = {
        .most = {[GD_QUOTA_CONNECTIONS] = 4,
                 [GD_QUOTA_RUNS] = 2,
                 [GD_QUOTA_FDS] = 9,
                 [GD_QUOTA_MEMORY] = UINT64_C(1) << 40},
        .messages_per_second = 1000,
    };
    cr_assert_eq(gd_quota_new(&limits, &quota), 0);
}

static void tear_down(void) {
    gd_quota_free(quota);
}

TestSuite(quota, .init = set_up, .fini = tear_down);

static int charge(uid_t uid, enum gd_quota_kind kind, uint64_t amount, struct gd_charge *to) {
    return gd_quota_charge(quota, uid, kind, amount, to, &error);
}

// ---- charges

Test(quota, takes_up_to_the_limit_and_names_what_it_refuses) {
    static const struct {
        enum gd_quota_kind kind;
        uint64_t first, second; // the second is one too much
        const char *field, *text;
    } cases[] = {
        {GD_QUOTA_CONNECTIONS, 4, 1, "connections", "connections is 1, uid 7 holds 4 already, the limit is 4"},
        {GD_QUOTA_RUNS, 1, 2, "runs", "runs is 2, uid 7 holds 1 already, the limit is 2"},
        {GD_QUOTA_FDS, 7, 3, "fds", "fds is 3, uid 7 holds 7 already, the limit is 9"},
        {GD_QUOTA_MEMORY, 1, UINT64_C(1) << 40, "memory",
         "memory is 1099511627776 bytes, uid 7 holds 1 already, the limit is 1099511627776"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct gd_charge first = {0}, second = {0};
        cr_assert_eq(charge(7, cases[i].kind, cases[i].first, &first), 0);
        cr_assert_lt(charge(7, cases[i].kind, cases[i].second, &second), 0, "%s", cases[i].field);
        cr_expect_eq(error.code, GD_ERROR_QUOTA);
        cr_expect_str_eq(error.field, cases[i].field);
        cr_expect_str_eq(error.text, cases[i].text);
        cr_expect_eq(second.amount, 0);
        cr_expect_eq(charge(7, cases[i].kind, cases[i].second - 1, &second), 0, "%s", error.text);
        gd_charge_release(&first);
        gd_charge_release(&second);
    }
}

Test(quota, refuses_amounts_whose_sum_does_not_fit) {
    struct gd_charge first = {0}, second = {0};
    cr_assert_eq(charge(7, GD_QUOTA_MEMORY, 5, &first), 0);
    cr_expect_lt(charge(7, GD_QUOTA_MEMORY, UINT64_MAX, &second), 0);
    cr_expect_lt(charge(7, GD_QUOTA_MEMORY, UINT64_MAX - 4, &second), 0);
    gd_charge_release(&first);
}

Test(quota, gives_back_what_is_released) {
    struct gd_charge all = {0}, more = {0};
    cr_assert_eq(charge(7, GD_QUOTA_RUNS, 2, &all), 0);
    cr_assert_lt(charge(7, GD_QUOTA_RUNS, 1, &more), 0);
    gd_charge_release(&all);
    gd_charge_release(&all); // holds nothing any more
    cr_assert_eq(charge(7, GD_QUOTA_RUNS, 2, &more), 0);
    cr_assert_lt(charge(7, GD_QUOTA_RUNS, 1, &all), 0, "what was released twice counts twice");
    gd_charge_release(&more);
}

Test(quota, keeps_users_and_kinds_apart) {
    struct gd_charge runs = {0}, fds = {0}, other = {0};
    cr_assert_eq(charge(7, GD_QUOTA_RUNS, 2, &runs), 0);
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 9, &fds), 0);
    cr_assert_eq(charge(8, GD_QUOTA_RUNS, 2, &other), 0);
    gd_charge_release(&other);
    cr_assert_lt(charge(7, GD_QUOTA_RUNS, 1, &other), 0, "another user's release counts for this one");
    gd_charge_release(&runs);
    gd_charge_release(&fds);
}

Test(quota, adds_to_a_charge_and_moves_parts_of_it) {
    struct gd_charge queue = {0}, run = {0}, none = {0};
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 1, &queue), 0);
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 2, &queue), 0);
    cr_assert_eq(queue.amount, 3);
    gd_charge_move(&queue, 1, &run);
    gd_charge_move(&queue, 1, &run);
    cr_assert_eq(queue.amount, 1);
    cr_assert_eq(run.amount, 2);
    gd_charge_move(&queue, 5, &run); // there is one
    cr_assert_eq(queue.amount, 0);
    cr_assert_eq(run.amount, 3);
    gd_charge_move(&none, 1, &run);
    cr_assert_eq(run.amount, 3);
    gd_charge_release(&queue);
    cr_assert_lt(charge(7, GD_QUOTA_FDS, 7, &none), 0, "moving has released something");
    gd_charge_release(&run);
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 9, &none), 0);
    gd_charge_release(&none);
}

// ---- accounts

Test(quota, frees_an_account_that_holds_nothing) {
    struct gd_charge seven = {0}, eight = {0};
    cr_assert_eq(charge(7, GD_QUOTA_RUNS, 1, &seven), 0);
    cr_assert_eq(charge(8, GD_QUOTA_RUNS, 1, &eight), 0);
    cr_assert_eq(gd_quota_accounts(quota), 2);
    gd_charge_release(&seven);
    gd_quota_sweep(quota, 1);
    cr_assert_eq(gd_quota_accounts(quota), 1);
    gd_charge_release(&eight);
    gd_quota_sweep(quota, 2);
    cr_assert_eq(gd_quota_accounts(quota), 0);
}

static void *release(void *argument) {
    gd_charge_release(argument);
    return NULL;
}

Test(quota, takes_releases_from_other_threads_also_after_its_end) {
    struct gd_charge charges[2] = {{0}, {0}};
    pthread_t thread;
    for (int i = 0; i < 2; i++)
        cr_assert_eq(charge((uid_t)i, GD_QUOTA_FDS, 1, &charges[i]), 0);
    gd_quota_free(quota);
    quota = NULL;
    for (int i = 0; i < 2; i++) { // a sanitizer tells if this is freed too early, or never
        cr_assert_eq(pthread_create(&thread, NULL, release, &charges[i]), 0);
        pthread_join(thread, NULL);
    }
}

// ---- messages

struct client {
    struct gd_charge connection;
    struct gd_rate rate;
};

static void connect_client(struct client *client, uid_t uid, uint64_t now_ns) {
    *client = (struct client){0};
    cr_assert_eq(charge(uid, GD_QUOTA_CONNECTIONS, 1, &client->connection), 0);
    gd_rate_init(&client->rate, &client->connection, now_ns);
}

// Sends up to `most` messages at one time; how many were taken.
static int send_messages(struct client *client, int most, uint64_t now_ns) {
    for (int sent = 0; sent < most; sent++)
        if (gd_quota_count_message(&client->connection, &client->rate, now_ns, &error) < 0)
            return sent;
    return most;
}

Test(quota, lets_a_second_s_worth_pass_and_then_as_many_as_time_pays_for) {
    struct client client;
    connect_client(&client, 7, 5 * SECOND);
    cr_assert_eq(send_messages(&client, 5000, 5 * SECOND), 1000);
    cr_expect_eq(error.code, GD_ERROR_QUOTA);
    cr_expect_str_eq(error.field, "messages");
    cr_expect_str_eq(error.text,
                     "messages: uid 7 sent more than 1000 within a second over 1 connections, the limit is 1000");
    cr_assert_eq(send_messages(&client, 10, 5 * SECOND + MS - 1), 0);
    cr_assert_eq(send_messages(&client, 10, 5 * SECOND + MS), 1);
    cr_assert_eq(send_messages(&client, 5000, 5 * SECOND + 101 * MS), 100);
    cr_assert_eq(send_messages(&client, 5000, UINT64_MAX / 2), 1000); // no more than a second's, however long it was
    gd_charge_release(&client.connection);
}

Test(quota, a_steady_rate_at_the_limit_is_never_refused) {
    struct client client;
    uint64_t now_ns = SECOND;
    connect_client(&client, 7, now_ns);
    for (int i = 0; i < 100000; i++, now_ns += MS)
        cr_assert_eq(send_messages(&client, 1, now_ns), 1, "message %d", i);
    gd_charge_release(&client.connection);
}

Test(quota, a_flood_stops_the_one_who_floods_and_no_other) {
    struct client victim, flood;
    connect_client(&victim, 7, SECOND);
    connect_client(&flood, 7, SECOND);
    cr_assert_eq(send_messages(&victim, 100, SECOND), 100);
    cr_assert_eq(send_messages(&flood, 5000, SECOND), 900, "the victim's messages must count");
    cr_assert_eq(send_messages(&victim, 5000, SECOND), 400, "an equal part of the limit is the victim's");
    cr_assert_eq(send_messages(&flood, 1, SECOND), 0);
    gd_charge_release(&flood.connection);
    cr_assert_eq(send_messages(&victim, 5000, SECOND), 500, "now it is alone, and all is its part");
    gd_charge_release(&victim.connection);
}

Test(quota, coming_again_gains_nothing) {
    struct client client, other;
    connect_client(&client, 7, SECOND);
    cr_assert_eq(send_messages(&client, 5000, SECOND), 1000);
    gd_charge_release(&client.connection);
    gd_quota_sweep(quota, SECOND + 10 * MS);
    cr_assert_eq(gd_quota_accounts(quota), 1, "what was sent is forgotten");
    connect_client(&client, 7, SECOND + 10 * MS);
    cr_assert_eq(send_messages(&client, 5000, SECOND + 10 * MS), 10);
    connect_client(&other, 7, SECOND + 10 * MS);
    cr_assert_eq(send_messages(&other, 5000, SECOND + 10 * MS), 0);
    gd_charge_release(&client.connection);
    gd_charge_release(&other.connection);
    gd_quota_sweep(quota, 2 * SECOND + 10 * MS);
    cr_assert_eq(gd_quota_accounts(quota), 0);
}

static int send_costly(struct client *client, int most, uint64_t now_ns) {
    for (int sent = 0; sent < most; sent++)
        if (gd_quota_count_costly(&client->connection, &client->rate, now_ns, &error) < 0)
            return sent;
    return most;
}

// Here 1,000 messages a second: a costly one is as much as another.
Test(quota, lets_a_thousand_costly_messages_pass_in_a_second) {
    struct client client;
    connect_client(&client, 7, SECOND);
    cr_assert_eq(send_costly(&client, 400, SECOND), 400);
    cr_assert_eq(send_messages(&client, 5000, SECOND), 600);
    cr_assert_eq(send_costly(&client, 10, SECOND), 0);
    cr_expect_str_eq(error.field, "messages");
    cr_assert_eq(send_costly(&client, 5000, SECOND + 500 * MS), 500);
    gd_charge_release(&client.connection);
}

Test(quota, a_costly_message_counts_by_the_limit) {
    static const uint32_t limits[] = {1, 999, 1000000, GD_QUOTA_MESSAGES_MAX};
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        const struct gd_quota_limits other = {.most = {[GD_QUOTA_CONNECTIONS] = 4}, .messages_per_second = limits[i]};
        struct client client;
        gd_quota_free(quota);
        cr_assert_eq(gd_quota_new(&other, &quota), 0);
        connect_client(&client, 7, SECOND);
        cr_expect_eq(send_costly(&client, 5000, SECOND), 1000, "%u", limits[i]);
        gd_charge_release(&client.connection);
    }
}

Test(quota, lists_who_holds_something) {
    struct gd_charge seven = {0}, eight = {0}, gone = {0};
    struct gd_quota_holding holdings[4];
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 3, &seven), 0);
    cr_assert_eq(charge(8, GD_QUOTA_MEMORY, 4096, &eight), 0);
    cr_assert_eq(charge(9, GD_QUOTA_RUNS, 1, &gone), 0);
    gd_charge_release(&gone);
    cr_assert_eq(gd_quota_list(quota, NULL, holdings, 4), 2);
    for (int i = 0; i < 2; i++) {
        bool is_seven = holdings[i].uid == 7;
        cr_expect(is_seven || holdings[i].uid == 8);
        cr_expect_eq(holdings[i].held[GD_QUOTA_FDS], is_seven ? 3 : 0);
        cr_expect_eq(holdings[i].held[GD_QUOTA_MEMORY], is_seven ? 0 : 4096);
    }
    cr_expect_eq(gd_quota_list(quota, NULL, holdings, 1), 1);
    cr_assert_eq(gd_quota_list(quota, &(uid_t){8}, holdings, 4), 1);
    cr_expect_eq(holdings[0].uid, 8);
    cr_expect_eq(gd_quota_list(quota, &(uid_t){9}, holdings, 4), 0);
    gd_charge_release(&seven);
    gd_charge_release(&eight);
}

Test(quota, counts_the_messages_of_each_user_for_itself) {
    struct client seven, eight;
    connect_client(&seven, 7, SECOND);
    connect_client(&eight, 8, SECOND);
    cr_assert_eq(send_messages(&seven, 5000, SECOND), 1000);
    cr_assert_eq(send_messages(&eight, 5000, SECOND), 1000);
    gd_charge_release(&seven.connection);
    gd_charge_release(&eight.connection);
}

// ---- other limits

static void set_limits(uint64_t fds, uint32_t messages_per_second) {
    const struct gd_quota_limits limits = {
        .most = {[GD_QUOTA_CONNECTIONS] = 4, [GD_QUOTA_RUNS] = 2, [GD_QUOTA_FDS] = fds, [GD_QUOTA_MEMORY] = 1 << 20},
        .messages_per_second = messages_per_second,
    };
    gd_quota_set_limits(quota, &limits);
}

Test(quota, lower_limits_take_nothing_away) {
    struct gd_charge held = {0}, more = {0};
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 9, &held), 0);
    set_limits(5, 1000);
    cr_expect_eq(held.amount, 9);
    cr_assert_lt(charge(7, GD_QUOTA_FDS, 1, &more), 0);
    cr_expect_str_eq(error.text, "fds is 1, uid 7 holds 9 already, the limit is 5");
    gd_charge_release(&held);
    cr_assert_lt(charge(7, GD_QUOTA_FDS, 6, &more), 0);
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 5, &more), 0, "%s", error.text);
    set_limits(6, 1000);
    cr_assert_eq(charge(7, GD_QUOTA_FDS, 1, &more), 0, "%s", error.text);
    gd_charge_release(&more);
}

Test(quota, who_is_there_may_go_on_sending_under_a_lower_limit) {
    struct client before, after;
    uint64_t now_ns = SECOND;
    connect_client(&before, 7, now_ns);
    set_limits(9, 10);
    for (int i = 0; i < 5000; i++, now_ns += MS)
        cr_assert_eq(send_messages(&before, 1, now_ns), 1, "message %d: %s", i, error.text);
    now_ns += SECOND; // what it sent is paid off
    connect_client(&after, 8, now_ns);
    cr_assert_eq(send_messages(&after, 100, now_ns), 10);
    cr_expect_str_eq(error.text,
                     "messages: uid 8 sent more than 10 within a second over 1 connections, the limit is 10");
    gd_charge_release(&after.connection);
    connect_client(&after, 7, now_ns);
    cr_assert_eq(send_messages(&after, 100, now_ns), 10, "of the same user");
    cr_assert_eq(send_messages(&before, 1000, now_ns), 500, "its part of its own limit");
    gd_charge_release(&after.connection);
    gd_charge_release(&before.connection);
}

Test(quota, what_was_sent_counts_the_same_under_another_limit) {
    struct client client;
    connect_client(&client, 7, SECOND);
    cr_assert_eq(send_messages(&client, 500, SECOND), 500);
    gd_charge_release(&client.connection);
    set_limits(9, 4);
    connect_client(&client, 7, SECOND);
    cr_assert_eq(send_messages(&client, 100, SECOND), 2, "half of the second was used up");
    gd_charge_release(&client.connection);
}
