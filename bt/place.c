/*
 * The places of a CCF's code that hold an EIP, or that lead to its other part: what has to be changed in a
 * copy of it that is for another EIP (reuse.c). Whatever emits such a thing notes it here.
 */
#include "bt/bt_internal.h"

void place_none(struct xlate *x)
{
    x->notes_places = false;
}

void place_note_at(struct xlate *x, const struct emit *e, const uint8_t *at, enum place_kind kind)
{
    struct ccf_draft *d = x->d;

    if (!x->notes_places || e->overflow)
        return;
    if (d->nplaces == CCF_MAX_PLACES) {
        place_none(x);
        return;
    }
    d->places[d->nplaces++] = (uint32_t)kind << PLACE_SHIFT | (e == &x->cold ? PLACE_COLD : 0) |
                              (uint32_t)(at - e->start);
}

void place_note(struct xlate *x, const struct emit *e, enum place_kind kind)
{
    place_note_at(x, e, e->p - 4, kind);
}
