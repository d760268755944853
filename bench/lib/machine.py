"""The host that figures come from: what a reader must know to judge them."""
import os
import platform
import time


def _first(path, key):
    try:
        with open(path) as f:
            for line in f:
                if line.startswith(key):
                    return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return ''


def describe():
    """-> dict for the report: processor, cores, kernel, load before the start, date (UTC)."""
    return dict(processor=_first('/proc/cpuinfo', 'model name') or platform.processor(),
                virtual=' hypervisor ' in ' ' + _first('/proc/cpuinfo', 'flags') + ' ',
                cores=len(os.sched_getaffinity(0)), kernel=platform.release(),
                load=round(os.getloadavg()[0], 2), date=time.strftime('%Y-%m-%d %H:%M', time.gmtime()))


def line(machine):
    return '%s%s, %d core%s, Linux %s, load %.1f at the start, %s UTC' % (
        machine['processor'], ' (virtual)' if machine['virtual'] else '', machine['cores'],
        '' if machine['cores'] == 1 else 's', machine['kernel'], machine['load'], machine['date'])
