"""Pages in a browser without a window, where there is one."""

import json
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

# What is put into the head of every page: it keeps what the console would show, and what did not load.
LISTENS = """<script>
window.complaints = [];
addEventListener("error", e => complaints.push(e.message || "not loaded: " + (e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", e => complaints.push(String(e.reason)));
console.error = console.warn = (...words) => complaints.push(words.join(" "));
</script>"""

# Opens page after page in frames as wide as the screen would be, and posts what it saw.
VISITS = """<!doctype html><body><script>
const pages = PAGES, widths = WIDTHS, seen = {};
const visit = (page, width) => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 900px; border: 0`;
  frame.onload = () => setTimeout(() => {
    const root = frame.contentDocument.documentElement, inside = root.clientWidth;
    const wide = [...root.querySelectorAll("body *")].filter(e => {
      for (let p = e; p && p !== root; p = p.parentElement)
        if (["auto", "scroll", "hidden"].includes(getComputedStyle(p).overflowX) && p !== e) return false;
      const box = e.getBoundingClientRect();
      return box.width && box.right > inside + 1 && getComputedStyle(e).position !== "fixed";
    }).slice(0, 3).map(e => e.outerHTML.slice(0, 120));
    seen[`${page} ${width}`] = {over: root.scrollWidth - inside, wide: root.scrollWidth > inside ? wide : [],
      complaints: frame.contentWindow.complaints};
    frame.remove(); done();
  }, 0);
  frame.src = page; document.body.append(frame);
});
(async () => {
  for (const width of widths) for (let i = 0; i < pages.length; i += 4)
    await Promise.all(pages.slice(i, i + 4).map(page => visit(page, width)));
  fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
})();
</script></body>"""


def headless(profile):
    """Return the command of a browser, to which a URL is added, or skip the test."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no {' or '.join(BROWSERS)} on the path")
    return [found, *FLAGS, f"--user-data-dir={profile}"]


class _Site(SimpleHTTPRequestHandler):
    visits, answers = "", Queue()

    def do_GET(self):
        path = self.translate_path(self.path)
        if self.path == "/visit":
            self._send(self.visits)
        elif path.endswith(".html"):
            self._send(Path(path).read_text(encoding="utf-8").replace("<head>", f"<head>{LISTENS}", 1))
        else:
            super().do_GET()

    def do_POST(self):
        self.answers.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._send("")

    def _send(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        """Say nothing."""


def visit(folder, pages, widths, profile, timeout=120):
    """Return what a browser sees of pages of a folder, at widths of the screen, by "page width".

    ``over`` is by how many pixels the page is wider than the screen, ``wide`` what reaches beyond it, ``complaints``
    what the console shows.
    """
    command = [*headless(profile), "--window-size=1400,1000"]
    there = json.dumps([f"/{page}" for page in pages])
    _Site.visits = VISITS.replace("PAGES", there).replace("WIDTHS", json.dumps(list(widths)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Site, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    shown = subprocess.Popen([*command, f"http://127.0.0.1:{server.server_port}/visit"], stderr=subprocess.DEVNULL)
    try:
        return _Site.answers.get(timeout=timeout)
    finally:
        shown.terminate()
        shown.wait()
        server.shutdown()
