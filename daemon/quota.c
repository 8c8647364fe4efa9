#include "quota.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_PS UINT64_C(1000000000000)
#define PS_PER_NS UINT64_C(1000) // finer than a nanosecond: at the largest limits a message takes one, and few parts

// Of messages that were measured to take the loop 0.03 ms, and 0.5 ms for who has sixty runs with the longest names.
// How long many of them hold it at once is not this limit's affair, see answer_request() in session.c.
enum { COSTLY_PER_SECOND = 1000 };

struct gd_account {
    struct gd_quota *quota;
    struct gd_account *next;
    uid_t uid;
    uint64_t held[GD_QUOTA_KINDS];
    struct gd_rate rate;
};

struct gd_quota {
    pthread_mutex_t mutex; // of the list and of what accounts hold
    struct gd_quota_limits limits;
    struct gd_account *accounts;
    bool freed; // but for what is still charged
};

int gd_quota_new(const struct gd_quota_limits *limits, struct gd_quota **ret_quota) {
    assert(limits->messages_per_second > 0 && limits->messages_per_second <= GD_QUOTA_MESSAGES_MAX);
    struct gd_quota *quota = calloc(1, sizeof(*quota));
    if (!quota)
        return -ENOMEM;
    pthread_mutex_init(&quota->mutex, NULL);
    quota->limits = *limits;
    *ret_quota = quota;
    return 0;
}

void gd_quota_set_limits(struct gd_quota *quota, const struct gd_quota_limits *limits) {
    assert(limits->messages_per_second > 0 && limits->messages_per_second <= GD_QUOTA_MESSAGES_MAX);
    pthread_mutex_lock(&quota->mutex);
    quota->limits = *limits;
    pthread_mutex_unlock(&quota->mutex);
}

static bool holds_nothing(const struct gd_account *account) {
    for (int kind = 0; kind < GD_QUOTA_KINDS; kind++)
        if (account->held[kind] > 0)
            return false;
    return true;
}

// Unlocks; frees a quota that was given up, with its last charge.
static void unlock(struct gd_quota *quota) {
    bool last = quota->freed;
    for (const struct gd_account *account = quota->accounts; account && last; account = account->next)
        last = holds_nothing(account);
    pthread_mutex_unlock(&quota->mutex);
    if (!last)
        return;
    for (struct gd_account *account = quota->accounts, *next; account; account = next) {
        next = account->next;
        free(account);
    }
    pthread_mutex_destroy(&quota->mutex);
    free(quota);
}

void gd_quota_free(struct gd_quota *quota) {
    if (!quota)
        return;
    pthread_mutex_lock(&quota->mutex);
    quota->freed = true;
    unlock(quota);
}

// The uid's account, a new one if need be; NULL: out of memory.
static struct gd_account *find(struct gd_quota *quota, uid_t uid) {
    for (struct gd_account *account = quota->accounts; account; account = account->next)
        if (account->uid == uid)
            return account;
    struct gd_account *account = calloc(1, sizeof(*account));
    if (!account)
        return NULL;
    *account = (struct gd_account){.quota = quota, .next = quota->accounts, .uid = uid};
    quota->accounts = account;
    return account;
}

static int refuse(const struct gd_account *account, enum gd_quota_kind kind, uint64_t amount,
                  struct gd_error *ret_error) {
    static const struct {
        const char *field, *unit;
    } kinds[] = {
        [GD_QUOTA_CONNECTIONS] = {"connections", ""},
        [GD_QUOTA_RUNS] = {"runs", ""},
        [GD_QUOTA_FDS] = {"fds", ""},
        [GD_QUOTA_MEMORY] = {"memory", " bytes"},
    };
    return gd_error_set(ret_error, GD_ERROR_QUOTA, kinds[kind].field,
                        "%s is %llu%s, uid %u holds %llu already, the limit is %llu", kinds[kind].field,
                        (unsigned long long)amount, kinds[kind].unit, (unsigned)account->uid,
                        (unsigned long long)account->held[kind], (unsigned long long)account->quota->limits.most[kind]);
}

int gd_quota_charge(struct gd_quota *quota, uid_t uid, enum gd_quota_kind kind, uint64_t amount,
                    struct gd_charge *charge, struct gd_error *ret_error) {
    int result = 0;

    pthread_mutex_lock(&quota->mutex);
    struct gd_account *account = find(quota, uid);
    assert(charge->amount == 0 || (charge->account == account && charge->kind == kind));
    if (!account)
        result = -ENOMEM;
    else if (account->held[kind] > quota->limits.most[kind] || amount > quota->limits.most[kind] - account->held[kind])
        result = refuse(account, kind, amount, ret_error);
    else {
        account->held[kind] += amount;
        *charge = (struct gd_charge){account, kind, charge->amount + amount};
    }
    unlock(quota);
    return result;
}

void gd_charge_release(struct gd_charge *charge) {
    struct gd_account *account = charge->account;
    if (charge->amount > 0) {
        pthread_mutex_lock(&account->quota->mutex);
        account->held[charge->kind] -= charge->amount;
        unlock(account->quota);
    }
    *charge = (struct gd_charge){0};
}

void gd_charge_move(struct gd_charge *from, uint64_t amount, struct gd_charge *to) {
    if (amount > from->amount)
        amount = from->amount;
    if (amount == 0)
        return;
    assert(to->amount == 0 || (to->account == from->account && to->kind == from->kind));
    *to = (struct gd_charge){from->account, from->kind, to->amount + amount};
    from->amount -= amount;
}

// What was sent is paid off by the time that passes, or by one of `parts` equal parts of it.
static void pay_off(struct gd_rate *rate, uint64_t now_ns, uint64_t parts) {
    assert(now_ns >= rate->at_ns);
    uint64_t elapsed_ns = now_ns - rate->at_ns;
    if (elapsed_ns / parts > rate->level_ps / PS_PER_NS) // the product might not fit
        rate->level_ps = 0;
    else {
        uint64_t paid_ps = elapsed_ns * PS_PER_NS / parts;
        rate->level_ps -= paid_ps < rate->level_ps ? paid_ps : rate->level_ps;
    }
    rate->at_ns = now_ns;
}

void gd_rate_init(struct gd_rate *rate, const struct gd_charge *connection, uint64_t now_ns) {
    struct gd_account *account = connection->account;
    assert(connection->kind == GD_QUOTA_CONNECTIONS && connection->amount > 0);
    pay_off(&account->rate, now_ns, 1);
    *rate = (struct gd_rate){account->rate.level_ps / account->held[GD_QUOTA_CONNECTIONS], now_ns,
                             account->quota->limits.messages_per_second};
}

static void count(struct gd_rate *rate, uint64_t amount_ps) {
    rate->level_ps = rate->level_ps + amount_ps < SECOND_PS ? rate->level_ps + amount_ps : SECOND_PS;
}

// Counts what is worth `amount_ps`, of which the limit allows a second's.
static int count_messages(const struct gd_charge *connection, struct gd_rate *rate, uint64_t amount_ps, uint64_t now_ns,
                          struct gd_error *ret_error) {
    // the connection keeps the account, and only this thread changes how many connections there are: no lock
    struct gd_account *account = connection->account;
    assert(connection->kind == GD_QUOTA_CONNECTIONS && connection->amount > 0);
    uint64_t connections = account->held[GD_QUOTA_CONNECTIONS];
    uint64_t parts = connections < rate->limit ? connections : rate->limit; // a part is one message at least

    pay_off(&account->rate, now_ns, 1);
    pay_off(rate, now_ns, parts);
    if (account->rate.level_ps + amount_ps > SECOND_PS && rate->level_ps + amount_ps > SECOND_PS / parts)
        return gd_error_set(ret_error, GD_ERROR_QUOTA, "messages",
                            "messages: uid %u sent more than %u within a second over %llu connections, the limit is %u",
                            (unsigned)account->uid, rate->limit, (unsigned long long)connections, rate->limit);
    count(&account->rate, amount_ps);
    count(rate, amount_ps);
    return 0;
}

int gd_quota_count_message(const struct gd_charge *connection, struct gd_rate *rate, uint64_t now_ns,
                           struct gd_error *ret_error) {
    return count_messages(connection, rate, SECOND_PS / rate->limit, now_ns, ret_error);
}

int gd_quota_count_costly(const struct gd_charge *connection, struct gd_rate *rate, uint64_t now_ns,
                          struct gd_error *ret_error) {
    return count_messages(connection, rate, SECOND_PS / COSTLY_PER_SECOND, now_ns, ret_error);
}

void gd_quota_sweep(struct gd_quota *quota, uint64_t now_ns) {
    pthread_mutex_lock(&quota->mutex);
    for (struct gd_account **at = &quota->accounts; *at;) {
        struct gd_account *account = *at;
        pay_off(&account->rate, now_ns, 1);
        if (holds_nothing(account) && account->rate.level_ps == 0) {
            *at = account->next;
            free(account);
        } else {
            at = &account->next;
        }
    }
    unlock(quota);
}

uint32_t gd_quota_list(struct gd_quota *quota, const uid_t *only, struct gd_quota_holding *ret_holdings,
                       uint32_t most) {
    uint32_t n_holdings = 0;
    pthread_mutex_lock(&quota->mutex);
    for (const struct gd_account *account = quota->accounts; account && n_holdings < most; account = account->next) {
        if (holds_nothing(account) || (only && account->uid != *only))
            continue;
        struct gd_quota_holding *holding = &ret_holdings[n_holdings++];
        holding->uid = account->uid;
        memcpy(holding->held, account->held, sizeof(holding->held));
    }
    unlock(quota);
    return n_holdings;
}

const struct gd_quota_limits *gd_quota_limits(const struct gd_quota *quota) {
    return &quota->limits;
}

uint32_t gd_quota_accounts(struct gd_quota *quota) {
    uint32_t accounts = 0;
    pthread_mutex_lock(&quota->mutex);
    for (const struct gd_account *account = quota->accounts; account; account = account->next)
        accounts++;
    unlock(quota);
    return accounts;
}
