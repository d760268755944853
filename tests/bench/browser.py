"""A headless Chromium for tests of reports: opens a file without a network, tells what its console said, clicks, and
takes pictures. It is spoken to by the DevTools protocol over a pipe (--remote-debugging-pipe): JSON messages, each
ended by a zero byte; file descriptor 3 is the browser's input, 4 its output.
"""
import base64
import json
import os
import select
import shutil
import struct
import subprocess
import tempfile
import time
import zlib


class BrowserError(Exception):
    pass


class Browser:
    """with Browser() as b: b.open(path); ...; b.problems is what went wrong in the page."""

    TIMEOUT = 90 # seconds, for a busy machine

    def __init__(self, width=1200, height=900, dark=False):
        program = shutil.which('chromium') or shutil.which('chromium-browser')
        if not program:
            raise BrowserError('chromium is not installed (tools/packages)')
        self.home = tempfile.mkdtemp(prefix='ringdown-browser-')
        to_child, self.out = os.pipe()
        self.inp, from_child = os.pipe()

        def descriptors(): # in the child: 3 and 4, whatever the pipes' own numbers are
            a, b = os.dup(to_child), os.dup(from_child)
            os.dup2(a, 3)
            os.dup2(b, 4)
        self.child = subprocess.Popen(
            [program, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
             '--disable-background-networking', '--disable-component-update', '--host-resolver-rules=MAP * ~NOTFOUND',
             '--user-data-dir=' + self.home, '--window-size=%d,%d' % (width, height), '--remote-debugging-pipe', 'about:blank'],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=descriptors,
            close_fds=False, env=dict(os.environ, HOME=self.home))
        os.close(to_child)
        os.close(from_child)
        self.buffer, self.number, self.session = b'', 0, None
        self.problems, self.requests, self.events = [], [], []
        target = next(t for t in self.call('Target.getTargets')['targetInfos'] if t['type'] == 'page')
        self.session = self.call('Target.attachToTarget', targetId=target['targetId'], flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(domain + '.enable')
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call('Emulation.setEmulatedMedia',
                  features=[dict(name='prefers-color-scheme', value='dark' if dark else 'light')])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        os.close(self.inp)
        os.close(self.out)
        shutil.rmtree(self.home, ignore_errors=True)

    # ---- protocol ----------------------------------------------------------------------------------

    def _message(self, until):
        while b'\0' not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.inp], [], [], left)[0]:
                raise BrowserError('chromium does not answer')
            data = os.read(self.inp, 1 << 20)
            if not data:
                raise BrowserError('chromium ended')
            self.buffer += data
        raw, self.buffer = self.buffer.split(b'\0', 1)
        return json.loads(raw)

    def _event(self, message):
        name, p = message.get('method'), message.get('params', {})
        self.events.append(name)
        if name == 'Runtime.exceptionThrown':
            d = p['exceptionDetails']
            self.problems.append('exception: %s' % d.get('exception', {}).get('description', d.get('text')))
        elif name == 'Runtime.consoleAPICalled' and p['type'] in ('error', 'warning', 'assert'):
            self.problems.append('console: %s' % ' '.join(str(a.get('value', a.get('description'))) for a in p['args']))
        elif name == 'Log.entryAdded' and p['entry']['level'] in ('error', 'warning'):
            self.problems.append('log: %s' % p['entry']['text'])
        elif name == 'Network.requestWillBeSent':
            self.requests.append(p['request']['url'])

    def call(self, method, **params):
        self.number += 1
        message = dict(id=self.number, method=method, params=params)
        if self.session:
            message['sessionId'] = self.session
        os.write(self.out, json.dumps(message).encode() + b'\0')
        until = time.monotonic() + self.TIMEOUT
        while True:
            answer = self._message(until)
            if answer.get('id') == self.number:
                if 'error' in answer:
                    raise BrowserError('%s: %s' % (method, answer['error']['message']))
                return answer['result']
            self._event(answer)

    # ---- what tests do -------------------------------------------------------------------------------

    def open(self, path):
        self.events.clear()
        self.call('Page.navigate', url='file://' + os.path.abspath(path))
        until = time.monotonic() + self.TIMEOUT
        while 'Page.loadEventFired' not in self.events:
            self._event(self._message(until))
        self.eval('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))')

    def eval(self, expression):
        """The value of a JavaScript expression (a promise's, if it is one)."""
        found = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in found:
            raise BrowserError('%s: %s' % (expression, found['exceptionDetails'].get('text')))
        return found['result'].get('value')

    def mouse(self, kind, x, y, **more):
        self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, **more)

    def click(self, x, y):
        for kind in ('mousePressed', 'mouseReleased'):
            self.mouse(kind, x, y, button='left', clickCount=1)

    def middle_of(self, selector):
        """Scrolls it into view -> (x, y)."""
        at = self.eval('(() => { const e = document.querySelector(%s); e.scrollIntoView({block: "center", behavior: "instant"});'
                       'const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()'
                       % json.dumps(selector))
        return at[0], at[1]

    def screenshot(self, path, whole=True):
        """A PNG of the whole page, or of what is in view."""
        data = self.call('Page.captureScreenshot', format='png', captureBeyondViewport=whole, **(
            dict(clip=dict(x=0, y=0, scale=1, width=self.eval('innerWidth'),
                           height=min(16000, self.eval('document.documentElement.scrollHeight')))) if whole else {}))
        with open(path, 'wb') as f:
            f.write(base64.b64decode(data['data']))


def png_colours(path):
    """How many different colours a PNG of 8 bits a channel has: one that is blank has one."""
    with open(path, 'rb') as f:
        data = f.read()
    if data[:8] != b'\x89PNG\r\n\x1a\n':
        raise ValueError('no PNG')
    at, packed = 8, b''
    width = height = kind = 0
    while at < len(data):
        size, name = struct.unpack('>I4s', data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if name == b'IHDR':
            width, height, _, kind = struct.unpack('>IIBB', body[:10])
        elif name == b'IDAT':
            packed += body
        at += 12 + size
    pixel = {2: 3, 6: 4}[kind]
    rows = zlib.decompress(packed)
    # A row's filter is undone only roughly: what matters is whether bytes differ at all.
    found = set()
    for y in range(0, height, 3):
        row = rows[y * (width * pixel + 1) + 1:(y + 1) * (width * pixel + 1)]
        found.update(row[i:i + pixel] for i in range(0, len(row), pixel))
    return len(found)
