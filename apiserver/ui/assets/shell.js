// The shell of the page: a terminal of xterm.js, which is loaded only when a shell is opened. What is typed goes to the server
// in the order in which it was typed, one request at a time. The output is the body of the request that opened the shell.
const v = new URL(import.meta.url).search;

// xterm.js writes style elements and style attributes, which the content security policy forbids. The same through the
// object model of CSS is allowed, because no text from outside can do it.
const create = Document.prototype.createElement;
Document.prototype.createElement = function (name, options) {
  if (name !== "style") return create.call(this, name, options);
  const sheet = new CSSStyleSheet(), stand = create.call(this, "span");
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  stand.hidden = true;
  Object.defineProperty(stand, "textContent", { set: (css) => sheet.replaceSync(css) });
  return stand;
};
const set = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (name === "style") this.style.cssText = value;
  else set.call(this, name, value);
};

const at = document.querySelector("[data-shell]"), note = document.getElementById("shell-note");
const again = document.getElementById("shell-again");
const say = (text) => { note.textContent = text || " "; };

const css = document.createElement("link");
css.rel = "stylesheet";
css.href = "/ui/assets/xterm.css" + v;
document.head.append(css);
const [{ Terminal }, { FitAddon }] = await Promise.all([import("/ui/assets/xterm.mjs" + v), import("/ui/assets/xterm-fit.mjs" + v)]);
const terminal = new Terminal({
  cursorBlink: !matchMedia("(prefers-reduced-motion: reduce)").matches, fontFamily: "ui-monospace, monospace", fontSize: 14, scrollback: 5000,
  screenReaderMode: true,
});
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(at);
fit.fit();
terminal.attachCustomKeyEventHandler((e) => {
  if (e.key !== "F6") return true;
  e.preventDefault();
  if (e.type === "keydown") again.focus();
  return false;
});

let input = "", size = null, sending = false; // what the server does not have yet
const encoder = new TextEncoder();
const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
let shell = null; // the open one

const flush = async () => {
  if (sending || !shell || !shell.id) return;
  sending = true;
  try {
    while (shell && (input || size)) {
      const url = new URL("/ui/shell/" + shell.name + "/" + shell.id, location.origin);
      if (size) { url.searchParams.set("rows", size.rows); url.searchParams.set("cols", size.cols); size = null; }
      const body = encoder.encode(input.slice(0, 16384));
      input = input.slice(16384);
      const r = await fetch(url, { method: "POST", body, headers: { "Content-Type": "application/octet-stream" } });
      if (!r.ok) break; // the shell has ended, and its stream says why
    }
  } catch { /* the stream ends, too */ } finally { sending = false; }
};
terminal.onData((data) => { input += data; flush(); });
terminal.onResize((s) => { size = s; flush(); });
new ResizeObserver(() => fit.fit()).observe(at);

const hear = (m, mine) => {
  if (m.id) { mine.id = m.id; say("Connected. F6 leaves the terminal."); flush(); }
  if (m.out) terminal.write(decode(m.out));
  if ("code" in m) { mine.over = true; say("The shell has ended with exit code " + m.code + "."); }
  if (m.why) { mine.over = true; say("The shell has ended: " + m.why); }
};
const run = async () => {
  if (shell) shell.stop.abort();
  const mine = shell = { name: at.dataset.shell, id: "", over: false, stop: new AbortController() };
  input = ""; size = null;
  terminal.reset();
  say("Connecting…");
  again.textContent = "Restart";
  try {
    const query = new URLSearchParams({ service: at.dataset.service, rows: terminal.rows, cols: terminal.cols });
    const r = await fetch("/ui/shell/" + mine.name + "?" + query, { method: "POST", signal: mine.stop.signal });
    if (r.redirected) return location.reload(); // to the login
    if (!r.ok) {
      const doc = new DOMParser().parseFromString(await r.text(), "text/html");
      say("The shell cannot be opened: " + (doc.querySelector("[role=alert]")?.textContent || r.status));
      return;
    }
    let rest = "";
    for (const reader = r.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line && shell === mine) hear(JSON.parse(line), mine);
    }
    if (shell === mine && !mine.over) say("The connection is lost, and the shell has ended with it.");
  } catch {
    if (shell === mine) say("The connection is lost, and the shell has ended with it.");
  } finally {
    if (shell === mine) { shell = null; again.textContent = "Open again"; }
  }
};
again.addEventListener("click", () => { terminal.focus(); run(); });
addEventListener("pagehide", () => { if (shell) shell.stop.abort(); });
terminal.focus();
run();
