"""What a person sees of TensorBoard: Debian's Chromium, which Playwright drives."""

import io
import json
import os
import urllib.parse

from PIL import Image
from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
TIMEOUT_MS = 30_000
ALERT = "alert-snackbar .mat-mdc-snack-bar-container, .mat-mdc-snack-bar-container"


class Browser:
    def __init__(self, address, width=1360, height=700):
        self.address = address
        self.playwright = sync_playwright().start()
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root Chromium starts only without
        self.chromium = self.playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        self.context = self.chromium.new_context(viewport={"width": width, "height": height})
        self.context.set_default_timeout(TIMEOUT_MS)

    def open(self, tab, pinned=(), query=()):
        """The dashboard `tab`, in a new page; `pinned` scalars come first on Time Series."""
        cards = json.dumps([{"plugin": "scalars", "tag": tag} for tag in pinned])
        arguments = {**({"pinnedCards": cards} if pinned else {}), **dict(query)}
        return Tab(self.context.new_page(), f"{self.address}/?{urllib.parse.urlencode(arguments)}#{tab}")

    def close(self):
        self.chromium.close()
        self.playwright.stop()


class Tab:
    def __init__(self, page, url):
        self.page = page
        self.faults = []
        page.on("console", lambda message: self._fault("console", message.text, message.type == "error"))
        page.on("pageerror", lambda error: self._fault("exception", str(error)))
        page.on("requestfailed", lambda request: self._fault("no answer", f"{request.url}: {request.failure}"))
        page.on("response", lambda r: self._fault("answer", f"{r.status} {r.url}", r.status >= 400))
        page.goto(url)

    def _fault(self, kind, text, is_fault=True):
        if is_fault:
            self.faults.append(f"{kind}: {text}")

    def all_faults(self):
        """What went wrong until now, in the console, on the wire, or said in a toast."""
        return self.faults + [f"toast: {text}" for text in self.page.locator(ALERT).all_inner_texts()]

    def close(self):
        self.page.close()


def colored_pixels(png):
    """How many pixels of a picture are neither white, black nor grey: what is drawn of a run has its colour."""
    pixels = Image.open(io.BytesIO(png)).convert("RGB").tobytes()
    return sum(max(pixels[i : i + 3]) - min(pixels[i : i + 3]) > 40 for i in range(0, len(pixels), 3))
