"""Interleaved runs: every round runs all systems, each round starting with another one.

Figures of two runs on a shared machine cannot be compared; those of one round nearly can, since what disturbs the
machine for longer than a round disturbs all of them.
"""


def interleave(systems, rounds, measure, say=lambda text: None):
    """Run `measure(system, round)` for every system in every round.

    @param systems  names, in the order of the columns
    @param measure  -> {row name: figure} of one run, or {row name: [figures]} when a run repeats inside
    @return {row name: {system: [figures, in the order of the rounds]}}; a row is there when any run gave it
    """
    rows = {}
    for number in range(rounds):
        turn = number % len(systems)
        for system in systems[turn:] + systems[:turn]:
            say('round %d of %d: %s' % (number + 1, rounds, system))
            for name, found in measure(system, number).items():
                samples = rows.setdefault(name, {}).setdefault(system, [])
                samples.extend(found if isinstance(found, list) else [found])
    return rows
