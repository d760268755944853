/*
 * Gates: places where the guest keeps changing one instruction (coherency=retranslate).
 *
 *     chains, jump table, hash --> gate --> version (made of the bytes that are there now)
 *                                           parked versions (made of bytes that were there)
 *
 * A *gate* is a CCF without instructions, whose one link leads to its present *version*: a CCF of the one
 * instruction there, found through the gate alone. When that instruction changes, its version is parked:
 * off the page lists, the gate's link back at its continuation. Everything that leads to the gate stays as
 * it is, and so do all other CCFs. The next to pass the gate asks for a version; one that was made of
 * what is there now is put back without translating anything, since its bytes were kept.
 *
 * A version may be parked while it runs, or with a return to its landing pending: what comes behind its
 * one instruction are transfers by address, and they stay right. So parking moves no generation, cuts no
 * return stack, and makes nobody leave.
 */
#include "base/assert.h"
#include "base/log.h"
#include "base/string.h"
#include "tcache/tcache_internal.h"

#define MAX_VERSIONS 4u

static void count_versions(struct ccf *gate, unsigned *n, struct ccf ***last)
{
    *n = 0;
    *last = NULL;
    for (struct ccf **at = &gate->versions; *at; at = &(*at)->versions) {
        *last = at;
        ++*n;
    }
}

/* Off the gate's list; a parked one then leads nowhere. */
static void forget(struct tcache *tc, struct ccf *version)
{
    struct ccf **at = &version->gate->versions;

    while (*at != version)
        at = &(*at)->versions;
    *at = version->versions;
    version->versions = NULL;
    if (version->is_parked) {
        version->is_parked = false;
        tcache_unchain(tc, version);
    }
}

void tcache_gate_commit(struct tcache *tc, struct ccf *gate, struct ccf *version)
{
    struct ccf **last;
    unsigned n;

    ASSERT(gate->live && gate->is_gate && !gate->links[0].to && version->pfn2 == CCF_ONE_PAGE);
    count_versions(gate, &n, &last);
    if (n == MAX_VERSIONS)
        forget(tc, *last);
    version->gate = gate;
    version->versions = gate->versions;
    gate->versions = version;
    tcache_chain(tc, &gate->links[0], version);
}

void tcache_gate_drop(struct tcache *tc, struct ccf *ccf, enum tcache_cause cause)
{
    if (ccf->gate)
        forget(tc, ccf);
    while (ccf->is_gate && ccf->versions) {
        if (ccf->versions->live)
            tcache_drop(tc, ccf->versions, cause);
        else
            forget(tc, ccf->versions);
    }
}

void tcache_gate_evict(struct tcache *tc, struct ccf *version)
{
    forget(tc, version);
}

void tcache_park(struct tcache *tc, struct ccf *version)
{
    ASSERT(version->live && version->gate->links[0].to == version);
    for (const struct ccf_link *l = version->gate->in; l; l = l->next_in)
        STAT_INC(tc->cpu, coherency_kept_chains);
    tcache_unchain_into(tc, version);
    tcache_pages_remove(tc, version);
    version->live = false;
    version->is_parked = true;
    tc->cpu->stats.ccf_live--;
    STAT_INC(tc->cpu, coherency_parked);
    LOG(tc->cpu->log, coherency, "retranslate: EIP 0x%08x PA 0x%llx changed; what leads to it stays\n", version->key.eip,
        (unsigned long long)version->key.pa);
}

struct ccf *tcache_gate_open(struct tcache *tc, struct ccf *gate, const uint8_t *now, uint32_t avail)
{
    ASSERT(gate->is_gate && !gate->links[0].to);
    for (struct ccf *v = gate->versions; v; v = v->versions) {
        if (!v->source || v->guest_len > avail || memcmp(v->source, now, v->guest_len) != 0)
            continue;
        if (!tcache_pages_add(tc, v))
            return NULL;
        v->is_parked = false;
        v->live = true;
        STAT_INC(tc->cpu, ccf_live);
        STAT_INC(tc->cpu, coherency_revived);
        tcache_chain(tc, &gate->links[0], v);
        return v;
    }
    return NULL;
}
