/*
 * The bus: who answers a port or a device's memory.
 *
 * A port access must be cheap, since a guest's console is one port write a
 * character. So every one of the 65,536 ports has a byte that indexes the table of
 * claims; memory ranges are few and are searched. A device that is byte-wide sees a
 * wider access as bytes at ascending addresses, lowest first, as the ISA bus's
 * steering logic splits it; so does an access that no single claim covers, and each
 * byte then finds its own device. Addresses nobody answers float high.
 *
 * Invariant: claims of one space never overlap.
 */
#include "monitor/machine_internal.h"

static uint32_t ones(unsigned size)
{
    return size >= 4 ? 0xffffffffu : (1u << (8 * size)) - 1;
}

static bool ranges_overlap(const struct bus_claim *c, uint64_t first, uint64_t last)
{
    return first <= c->last && last >= c->first;
}

int machine_claim_ports(struct machine *m, uint16_t port, unsigned count, const struct io_ops *ops, void *dev)
{
    struct bus *b = &m->bus;

    if (!count || port + count > BUS_PORT_COUNT)
        return -MACHINE_EINVAL;
    for (unsigned i = 0; i < count; i++)
        if (b->port_index[port + i])
            return -MACHINE_EBUSY;
    uint32_t index = 1;
    while (index <= b->port_count && b->port[index].ops)
        index++;
    if (index >= BUS_PORT_CLAIMS)
        return -MACHINE_ENOSPC;
    if (index > b->port_count)
        b->port_count = index;
    b->port[index] = (struct bus_claim){ .first = port, .last = port + count - 1u, .ops = ops, .dev = dev };
    for (unsigned i = 0; i < count; i++)
        b->port_index[port + i] = (uint8_t)index;
    return 0;
}

void machine_unclaim_ports(struct machine *m, uint16_t port, const void *dev)
{
    struct bus *b = &m->bus;
    uint32_t index = b->port_index[port];

    if (!index || b->port[index].first != port || b->port[index].dev != dev)
        return;
    for (uint64_t i = b->port[index].first; i <= b->port[index].last; i++)
        b->port_index[i] = 0;
    b->port[index] = (struct bus_claim){ 0 };
}

int machine_claim_mem(struct machine *m, uint64_t pa, uint64_t bytes, const struct io_ops *ops, void *dev)
{
    struct bus *b = &m->bus;

    if (!bytes || pa + bytes - 1 < pa)
        return -MACHINE_EINVAL;
    for (uint32_t i = 0; i < b->mem_count; i++)
        if (ranges_overlap(&b->mem[i], pa, pa + bytes - 1))
            return -MACHINE_EBUSY;
    if (b->mem_count == BUS_MEM_CLAIMS)
        return -MACHINE_ENOSPC;
    b->mem[b->mem_count++] =
        (struct bus_claim){ .first = pa, .last = pa + bytes - 1, .ops = ops, .dev = dev };
    return 0;
}

void machine_for_each_mmio(struct machine *m, void (*fn)(void *ctx, uint64_t pa, uint64_t bytes), void *ctx)
{
    for (uint32_t i = 0; i < m->bus.mem_count; i++)
        fn(ctx, m->bus.mem[i].first, m->bus.mem[i].last - m->bus.mem[i].first + 1);
}

static const struct bus_claim *find_claim(const struct bus *b, enum bus_space space, uint64_t addr)
{
    if (space == BUS_PORT) {
        uint8_t index = b->port_index[addr & 0xffff];
        return index ? &b->port[index] : NULL;
    }
    for (uint32_t i = 0; i < b->mem_count; i++)
        if (addr >= b->mem[i].first && addr <= b->mem[i].last)
            return &b->mem[i];
    return NULL;
}

/** Log the first access to each unclaimed port, and the first to unclaimed memory: probes repeat. */
static void report_unclaimed(struct machine *m, const struct bus_request *req, uint64_t addr, unsigned size)
{
    const char *verb = req->is_write ? "write to" : "read of";

    if (!LOG_ON(machine_log(m), guest_error))
        return;
    if (req->space == BUS_PORT) {
        uint8_t bit = (uint8_t)(1u << (addr & 7));
        if (m->bus.port_reported[addr >> 3] & bit)
            return;
        m->bus.port_reported[addr >> 3] |= bit;
        LOG(machine_log(m), guest_error, "bus: %u-byte %s port 0x%x, which nobody answers\n", size, verb,
            (unsigned)addr);
        return;
    }
    if (m->bus.mem_reported)
        return;
    m->bus.mem_reported = true;
    LOG(machine_log(m), guest_error, "bus: %u-byte %s PA 0x%llx, which nobody answers (said once)\n", size,
        verb, (unsigned long long)addr);
}

/** One access that goes to one device, or to nobody. */
static uint32_t access_one(struct machine *m, const struct bus_claim *claim, const struct bus_request *req,
                           uint64_t addr, unsigned size, uint32_t data)
{
    if (!claim) {
        report_unclaimed(m, req, addr, size);
        return ones(size);
    }
    if (req->is_write) {
        if (claim->ops->write)
            claim->ops->write(claim->dev, addr, size, data & ones(size));
        return data;
    }
    return claim->ops->read ? claim->ops->read(claim->dev, addr, size) & ones(size) : ones(size);
}

static uint32_t access_bytes(struct machine *m, const struct bus_request *req)
{
    uint32_t result = 0;

    for (unsigned i = 0; i < req->size; i++) {
        uint64_t addr = req->space == BUS_PORT ? (req->addr + i) & 0xffff : req->addr + i;
        const struct bus_claim *claim = find_claim(&m->bus, (enum bus_space)req->space, addr);
        result |= access_one(m, claim, req, addr, 1, (req->data >> (8 * i)) & 0xff) << (8 * i);
    }
    return result;
}

void machine_bus(struct machine *m, struct bus_request *req)
{
    uint64_t addr = req->space == BUS_PORT ? req->addr & 0xffff : req->addr;
    const struct bus_claim *claim = find_claim(&m->bus, (enum bus_space)req->space, addr);
    uint32_t result;

    if (req->size == 1 || (claim && claim->ops->wide && addr + req->size - 1 <= claim->last))
        result = access_one(m, claim, req, addr, req->size, req->data);
    else
        result = access_bytes(m, req);
    LOG(machine_log(m), dev, "%-10s %s %s 0x%llx.%u %s 0x%x\n", claim ? claim->ops->name : "(nobody)",
        req->space == BUS_PORT ? "port" : "PA", req->is_write ? "write" : "read", (unsigned long long)addr,
        req->size, req->is_write ? "<-" : "->", req->is_write ? req->data : result);
    if (!req->is_write)
        req->data = result;
}
