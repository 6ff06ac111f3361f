#!/usr/bin/env python3
"""Opens report pages in headless Chromium as a reader would, on a phone and on a desk, in light and in dark.

    scripts/check_pages.py runs/demo/report.html [--shots DIR]

Checks that nothing reaches beyond the window, no script fails, nothing is requested, figures have the page's colours, the
numbers of a figure are shown under the pointer and by arrow keys, pinned columns stay where they are while a table is
scrolled, a graph can be walked by slider, pointer and keyboard, and tokens say where they look. Prints what fails and leaves 1; without Chromium it leaves 2. --shots keeps pictures of all pages.
Needs Debian's package `chromium` (CHROMIUM names another program) and nothing but Python's standard library.
"""

import argparse
import base64
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

WIDTHS = [390, 1280]
SCHEMES = ["light", "dark"]
HEIGHT = 900
# A picture is cut off below this: some pages are very long.
TALLEST = 12000
PATIENCE_S = 30
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
]

# What is wider than the window, but for what its own box scrolls.
OVERFLOW = """(() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width) found.push(`the page is ${document.documentElement.scrollWidth} px wide`);
  for (const one of document.body.querySelectorAll("*")) {
    const box = one.getBoundingClientRect();
    const inside = one.parentElement.closest(".scroll, .picture, .status, svg");
    if (!inside && box.width > 0 && (box.right > width + 1 || box.left < -1)) {
      found.push(`<${one.localName} class="${one.getAttribute("class") ?? ""}"> reaches to ${Math.round(box.right)} px`);
    }
  }
  return found.slice(0, 5);
})()"""

# Figures whose ink is not the page's, and tables whose pinned columns leave their place.
LOOKS = """(() => {
  const ink = getComputedStyle(document.body).color, found = [];
  for (const text of document.querySelectorAll("svg.plot text.ink")) {
    if (getComputedStyle(text).fill !== ink) { found.push(`a figure's ink is ${getComputedStyle(text).fill}, the page's ${ink}`); break; }
  }
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth <= box.clientWidth) continue;
    const pins = Array.from(box.querySelectorAll("tbody tr:first-child .pin"));
    const before = pins.map(pin => pin.getBoundingClientRect().left);
    box.scrollLeft = box.scrollWidth;
    const moved = pins.filter((pin, n) => Math.abs(pin.getBoundingClientRect().left - before[n]) > 1);
    if (moved.length > 0) found.push(`"${moved[0].textContent}" is scrolled out of view`);
    box.scrollLeft = 0;
  }
  return found;
})()"""

# The middle of the first part with numbers, brought into view; none where the page has no such figure.
PART = """(() => {
  const part = document.querySelector("svg.plot .tips > path");
  if (!part) return null;
  part.scrollIntoView({ block: "center", behavior: "instant" });
  const { left, top, width, height } = part.getBoundingClientRect();
  const place = { x: left + width / 2, y: top + height / 2 };
  // Two frames, so that the window is drawn where it was scrolled to.
  return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(place))));
})()"""
TIP = """(() => {
  const tip = document.querySelector(".tip");
  const box = tip.getBoundingClientRect();
  const inside = box.left >= 0 && box.right <= document.documentElement.clientWidth && box.top >= 0;
  return tip.hidden ? "" : inside ? tip.textContent : `outside of the window: ${tip.textContent}`;
})()"""
FOCUS = 'document.querySelector("svg.plot:has(.tips)").focus({ preventScroll: true })'

# What a graph shows: edges in sight, edges that stand out, what its list and its slider say, and the node with the focus.
GRAPH = """(() => {
  const figure = document.querySelector("svg.plot .edge")?.closest("figure");
  if (!figure) return null;
  const all = Array.from(figure.querySelectorAll(".edge")), seen = all.filter(edge => getComputedStyle(edge).display !== "none");
  const picked = figure.querySelector(".node[aria-pressed=true]"), out = seen.filter(edge => !edge.classList.contains("dim"));
  const own = edge => [edge.dataset.from, edge.dataset.to].includes(picked?.dataset.node);
  return {
    all: all.length, seen: seen.length, out: out.length, foreign: picked ? out.filter(edge => !own(edge)).length : 0,
    listed: figure.querySelectorAll(".side li").length, said: figure.querySelector(".side output")?.textContent,
    picked: picked?.getAttribute("aria-label") ?? null, focus: document.activeElement.getAttribute("aria-label"),
    lit: figure.querySelectorAll(".edge.on").length,
  };
})()"""
# Where a part of the graph can be pointed at; none where something else lies over it.
SPOT = """(() => {
  const part = document.querySelector("figure.walk %s");
  part.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  const line = part.querySelector(".reach"), box = part.getBoundingClientRect();
  const at = share => line.getPointAtLength(line.getTotalLength() * share).matrixTransform(line.getScreenCTM());
  const spots = line ? [.5, .4, .6, .3, .7, .2, .8].map(at) : [{ x: box.left + box.width / 2, y: box.top + box.height / 2 }];
  const spot = spots.find(({ x, y }) => part.contains(document.elementFromPoint(x, y)));
  return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(spot && { x: spot.x, y: spot.y }))));
})()"""
# What tokens show: how many there are, which is picked, how many are shaded, and what is said of it.
TOKENS = """(() => {
  const figure = document.querySelector("figure.tokens");
  if (!figure) return null;
  const all = Array.from(figure.querySelectorAll(".text span")), picked = all.findIndex(one => one.getAttribute("aria-pressed") === "true");
  const shaded = all.filter(one => !["", "0%"].includes(one.style.getPropertyValue("--weight"))).length;
  return { all: all.length, picked, shaded, said: figure.querySelector("[role=status]")?.textContent ?? null,
           selects: figure.querySelectorAll("select").length };
})()"""
TOKEN_SPOT = """(() => {
  const span = document.querySelectorAll("figure.tokens .text span")[%d];
  span.scrollIntoView({ block: "center", behavior: "instant" });
  const box = span.getClientRects()[0];
  return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
})()"""
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Home": 36, "End": 35}


class Browser:
    """A tab of Chromium, spoken to by the DevTools protocol over a WebSocket."""

    def __init__(self, program: str, folder: str) -> None:
        command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = self.port(pathlib.Path(folder) / "DevToolsActivePort")
        ask = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(ask, timeout=PATIENCE_S) as answer:
            path = json.load(answer)["webSocketDebuggerUrl"].split(str(port), 1)[1]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.read = self.socket.makefile("rb")
        while self.read.readline() not in (b"\r\n", b""):
            pass
        self.calls = 0
        self.events: list[dict] = []

    def port(self, file: pathlib.Path) -> int:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"Chromium ended with {self.process.returncode}")
            if file.exists() and file.read_text().strip():
                return int(file.read_text().split()[0])
            time.sleep(0.05)
        raise RuntimeError(f"Chromium did not start within {PATIENCE_S} s")

    def send(self, text: str) -> None:
        payload, mask = text.encode(), os.urandom(4)
        length = len(payload)
        if length < 126:
            head = struct.pack(">BB", 0x81, 0x80 | length)
        elif length < 1 << 16:
            head = struct.pack(">BBH", 0x81, 0x80 | 126, length)
        else:
            head = struct.pack(">BBQ", 0x81, 0x80 | 127, length)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.socket.sendall(head + mask + masked)

    def receive(self) -> dict:
        text = b""
        while True:
            first, second = self.read.read(2)
            length = second & 127
            if length == 126:
                (length,) = struct.unpack(">H", self.read.read(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self.read.read(8))
            part = self.read.read(length)
            if first & 15 in (0, 1):
                text += part
                if first & 128:
                    return json.loads(text)

    def call(self, method: str, **parameters) -> dict:
        self.calls += 1
        number = self.calls
        self.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = self.receive()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def wait(self, event: str) -> None:
        while not any(message.get("method") == event for message in self.events):
            self.events.append(self.receive())

    def value(self, script: str):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", "a check failed to run"))
        return result["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ["keyDown", "keyUp"]:
            # Enter is a letter too: by it a button is pressed.
            text = {"text": "\r"} if (key, kind) == ("Enter", "keyDown") else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], **text)

    def click(self, x: float, y: float) -> None:
        for kind in ["mousePressed", "mouseReleased"]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def said(events: list[dict], page: str) -> list[str]:
    """What the browser complained of, and what it asked for beside the page itself."""
    found = []
    for event in events:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            found.append("script error: " + details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            found.append("error: " + parameters["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            address = parameters["request"]["url"]
            if address != page and not address.startswith("data:"):
                found.append(f"request for {address}")
    return found


def tips(browser: Browser) -> list[str]:
    """What is wrong with the numbers that figures show."""
    place = browser.value(PART)
    if place is None:
        return []
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
    under, found = browser.value(TIP), []
    if not under or under.startswith("outside"):
        found.append(f"no numbers under the pointer: {under or 'nothing is shown'}")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    if browser.value(TIP):
        found.append("the numbers stay when the pointer has left")
    browser.value(FOCUS)
    browser.press("ArrowRight")
    if not browser.value(TIP):
        found.append("no numbers by arrow keys")
    return found


def walk(browser: Browser) -> list[str]:
    """What is wrong with the graph of a page, where it has one."""
    graph, found = browser.value(GRAPH), []
    if graph is None:
        return []

    def expect(what: str, holds) -> None:
        now = browser.value(GRAPH)
        if not holds(now):
            found.append(f"the graph {what}: {now}")

    edges = graph["all"]
    if graph.get("said") is None:
        return ["the graph cannot be walked"]
    expect("does not show all edges at first", lambda g: g["seen"] == g["out"] == g["listed"] == edges)
    browser.value('document.querySelector(".walk .side input").focus()')
    browser.press("Home")
    expect("shows more than the strongest edge", lambda g: (g["seen"], g["listed"], g["said"]) == (1, 1, f"1 of {edges}"))
    browser.press("End")
    expect("does not show all edges again", lambda g: g["seen"] == g["listed"] == edges)
    spot = browser.value(SPOT % ".edge[data-rank='0']")
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **spot)
    if "→" not in browser.value(TIP):
        found.append(f"no numbers of an edge under the pointer: {browser.value(TIP) or 'nothing is shown'}")
    browser.click(**browser.value(SPOT % ".node[tabindex='0']"))
    expect("does not set a node's edges off", lambda g: g["picked"] and not g["foreign"] and 0 < g["out"] == g["listed"])
    browser.press("Escape")
    expect("keeps a node after Escape", lambda g: g["picked"] is None and g["out"] == edges)
    browser.value('document.querySelector(".walk .node[tabindex=\\"0\\"]").focus()')
    before = browser.value(GRAPH)["focus"]
    browser.press("ArrowUp")
    expect("is not walked by arrow keys", lambda g: g["focus"] not in (None, before))
    browser.press("Enter")
    expect("does not pick a node by Enter", lambda g: g["picked"] == g["focus"] and not g["foreign"])
    browser.value('document.querySelector(".walk .side li button").focus()')
    expect("does not show the edge of its list", lambda g: g["lit"] == 1)
    picked = browser.value(GRAPH)["picked"]
    browser.press("Enter")
    expect("is not walked by its list", lambda g: g["picked"] == g["focus"] != picked)
    found += browser.value(OVERFLOW)
    browser.press("Escape")
    browser.value('document.querySelector(".walk .picture").scrollLeft = 0')
    return found


def look(browser: Browser) -> list[str]:
    """What is wrong with the tokens of a page, where it has some."""
    tokens, found = browser.value(TOKENS), []
    if tokens is None:
        return []

    def expect(what: str, holds) -> None:
        now = browser.value(TOKENS)
        if not holds(now):
            found.append(f"tokens {what}: {now}")

    last = tokens["all"] - 1
    expect("cannot be asked", lambda t: t["selects"] == 3 and t["picked"] == -1 and t["shaded"] == 0)
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", **browser.value(TOKEN_SPOT % last))
    expect("say nothing under the pointer", lambda t: t["picked"] == last and t["shaded"] > 0 and "looks at" in t["said"])
    browser.value('document.querySelector("figure.tokens [tabindex=\\"0\\"]").focus()')
    browser.press("ArrowLeft")
    expect("are not walked by arrow keys", lambda t: t["picked"] == last - 1)
    way = 'document.querySelectorAll("figure.tokens select")[2]'
    browser.value(f'{way}.value = "1"; {way}.dispatchEvent(new Event("change"))')
    expect("do not say who looks at one", lambda t: "is looked at by" in t["said"])
    browser.press("Escape")
    expect("stay shaded after Escape", lambda t: t["picked"] == -1 and t["shaded"] == 0)
    browser.value(f'{way}.value = "0"; {way}.dispatchEvent(new Event("change"))')
    browser.press("End")
    return found + browser.value(OVERFLOW)


def check(browser: Browser, page: str, width: int, scheme: str, shot: pathlib.Path | None) -> list[str]:
    """What is wrong with a page at a width in a colour scheme."""
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT, deviceScaleFactor=1, mobile=width < 600)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.call("Page.navigate", url=page)
    browser.wait("Page.loadEventFired")
    found = browser.value(OVERFLOW) + browser.value(LOOKS) + tips(browser) + walk(browser) + look(browser)
    if shot:
        browser.value("window.scrollTo(0, 0)")
        tall = min(browser.value("document.documentElement.scrollHeight"), TALLEST)
        clip = {"x": 0, "y": 0, "width": width, "height": tall, "scale": 1}
        picture = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        shot.write_bytes(base64.b64decode(picture["data"]))
    return found + said(browser.events, page)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pages", nargs="+", type=pathlib.Path, metavar="PAGE")
    arguments.add_argument("--shots", type=pathlib.Path, metavar="DIR", help="keep pictures there")
    given = arguments.parse_args()
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("Chromium is missing: apt-get install chromium brings it", file=sys.stderr)
        return 2
    missing = [page for page in given.pages if not page.is_file()]
    if missing:
        print(f"{missing[0]}: no such page", file=sys.stderr)
        return 2
    if given.shots:
        given.shots.mkdir(parents=True, exist_ok=True)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="check-pages-", ignore_cleanup_errors=True) as folder:
        browser = Browser(program, folder)
        try:
            for domain in ["Page", "Runtime", "Log", "Network"]:
                browser.call(f"{domain}.enable")
            for page in given.pages:
                for width, scheme in [(width, scheme) for width in WIDTHS for scheme in SCHEMES]:
                    name = f"{page.parent.name}-{page.stem}-{width}-{scheme}.png"
                    shot = given.shots / name if given.shots else None
                    for fault in check(browser, page.resolve().as_uri(), width, scheme, shot):
                        print(f"{page} at {width} px, {scheme}: {fault}")
                        failures += 1
        finally:
            browser.close()
    checked = len(given.pages) * len(WIDTHS) * len(SCHEMES)
    print(f"{len(given.pages)} pages, {checked} views: {failures} faults")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
