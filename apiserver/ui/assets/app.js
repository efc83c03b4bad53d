// The script of the page. It shows times relative to now, keeps the view up to date over one stream, filters, searches and
// follows logs. Everything it shows is HTML that the server escaped, or text nodes.
"use strict";
(() => {
  const version = new URL(document.currentScript.src).search;
  const main = document.getElementById("main");
  const note = document.getElementById("link");
  const liveURL = () => location.pathname.replace(/^\/ui\/?/, "/ui/live/") + location.search;

  const showCurrent = () => document.querySelector("nav a[aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" }); // on narrow screens
  showCurrent();
  addEventListener("resize", showCurrent);

  // Times.
  const units = [["y", 31536000], ["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const relative = (seconds) => {
    const past = seconds >= 0;
    let n = Math.abs(seconds);
    if (n < 1) return "now";
    const i = units.findIndex(([, size]) => n >= size);
    let text = Math.floor(n / units[i][1]) + " " + units[i][0];
    const rest = Math.floor((n % units[i][1]) / (units[i + 1] || [0, Infinity])[1]);
    if (rest > 0 && i < 3 && n / units[i][1] < 10) text += " " + rest + " " + units[i + 1][0];
    return past ? text + " ago" : "in " + text;
  };
  const showTimes = (root) => {
    for (const t of root.querySelectorAll("time")) {
      const text = relative(Math.floor((Date.now() - Date.parse(t.dateTime)) / 1000));
      if (t.textContent !== text) t.textContent = text;
    }
  };
  showTimes(document);
  setInterval(() => showTimes(document), 1000);

  // Morph makes the children of old like those of wanted, and keeps what is equal: focus, selection and scroll positions stay.
  const morph = (old, wanted) => {
    if (old.dataset && "keep" in old.dataset) return;
    for (const { name, value } of wanted.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) if (!wanted.hasAttribute(name) && name !== "open") old.removeAttribute(name); // a person has opened the details
    if (old.localName === "input" || old.localName === "select") {
      if (old !== document.activeElement && old.localName === "input" && old.type !== "checkbox") old.value = wanted.getAttribute("value") || "";
      if (old === document.activeElement) return;
    }
    const byID = new Map();
    for (const c of old.children) if (c.id) byID.set(c.id, c);
    let at = old.firstChild;
    for (const w of [...wanted.childNodes]) {
      const same = w.id ? byID.get(w.id) : at && at.nodeType === w.nodeType && at.nodeName === w.nodeName && !at.id ? at : null;
      if (!same) {
        old.insertBefore(w, at);
        if (w.localName === "tr" || w.localName === "li") w.classList.add("changed");
        continue;
      }
      if (same === at) at = at.nextSibling;
      else old.insertBefore(same, at);
      if (w.nodeType !== 1) { if (same.data !== w.data) same.data = w.data; }
      else if (!(w.localName === "time" && same.dateTime === w.dateTime) && !same.isEqualNode(w)) morph(same, w);
    }
    while (at) { const next = at.nextSibling; at.remove(); at = next; }
  };
  const parse = (html) => {
    const doc = new DOMParser().parseFromString("<main>" + html + "</main>", "text/html");
    const fresh = doc.body.firstElementChild;
    showTimes(fresh);
    return document.adoptNode(fresh);
  };
  const show = (html, id) => {
    const fresh = parse(html);
    for (const { name, value } of main.attributes) fresh.setAttribute(name, value);
    morph(main, fresh);
    main.dataset.id = id;
  };

  // The stream. While the page is hidden it is closed, so that it costs nothing.
  let stream = null, retry = 0, timer = 0;
  const away = (text) => { if (note.textContent !== text) note.textContent = text; };
  const out = () => location.assign("/ui/login?next=" + encodeURIComponent(location.pathname + location.search));
  const close = () => { clearTimeout(timer); if (stream) stream.close(); stream = null; };
  const again = (open) => { close(); retry++; timer = setTimeout(open, Math.min(10000, 250 * 2 ** retry)); };
  const lost = async (open) => {
    away("The connection is lost. What you see may be old. Trying again…");
    try {
      const r = await fetch("/ui/live/search", { headers: { Accept: "text/event-stream" }, signal: AbortSignal.timeout(5000) });
      if (r.body) r.body.cancel();
      if (r.status === 401) return out();
    } catch { /* the server is away */ }
    again(open);
  };
  const open = () => {
    close();
    if (main.dataset.live !== "true" || document.hidden) return;
    const url = liveURL();
    const s = stream = new EventSource(url + (url.includes("?") ? "&" : "?") + "seen=" + encodeURIComponent(main.dataset.id));
    s.onopen = () => { retry = 0; away(""); main.dataset.open = url; };
    s.addEventListener("view", (e) => { if (s === stream) { show(e.data, e.lastEventId); main.dataset.open = url; } });
    s.addEventListener("reload", () => { close(); location.reload(); });
    s.addEventListener("over", () => { close(); out(); });
    s.onerror = () => { if (s === stream) { close(); lost(open); } };
  };
  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else open(); });
  addEventListener("pagehide", close);
  document.querySelector("form.who")?.addEventListener("submit", close); // or the end of the session would lead away from the answer
  addEventListener("pageshow", (e) => { if (e.persisted) open(); });
  open();

  // Parts that are loaded when they are opened, and again while they are seen.
  const load = async (part) => {
    const box = part.lastElementChild;
    if (!part.open || document.hidden || part.dataset.loading) return;
    part.dataset.loading = "yes";
    try {
      const r = await fetch(part.dataset.load, { signal: AbortSignal.timeout(30000) });
      if (r.redirected) return out();
      if (!r.ok) throw new Error(r.status); // the answer is not the part
      const fresh = document.createElement("div");
      fresh.append(...parse(await r.text()).childNodes);
      morph(box, fresh);
    } catch { box.textContent = "The server cannot answer now. Trying again…"; }
    delete part.dataset.loading;
  };
  const seen = (part) => { const r = part.getBoundingClientRect(); return r.bottom > 0 && r.top < innerHeight; };
  const reload = () => { for (const part of main.querySelectorAll("details[data-load]")) if (seen(part)) load(part); };
  main.addEventListener("toggle", (e) => { if (e.target.matches("details[data-load]")) load(e.target); }, true);
  document.addEventListener("visibilitychange", reload);
  setInterval(reload, 15000);

  // Filters change the address and the view, without a new document.
  const go = (url) => { history.replaceState(null, "", url); open(); };
  // calm calls f at once, and then not again before 40 ms have passed.
  const calm = (f) => {
    let timer = 0, again = null;
    const run = (...args) => {
      if (timer) { again = args; return; }
      f(...args);
      timer = setTimeout(() => { timer = 0; const next = again; again = null; if (next) run(...next); }, 40);
    };
    return run;
  };
  const filter = calm((form) => {
    const q = new URLSearchParams([...new FormData(form)].filter(([, v]) => v !== ""));
    go(form.getAttribute("action") + (q.size ? "?" + q : ""));
  });
  main.addEventListener("input", (e) => {
    const form = e.target.closest("form[data-filter]");
    if (form) filter(form);
  });
  main.addEventListener("submit", (e) => {
    if (e.target.matches("form[data-filter]")) e.preventDefault();
    if (!e.target.matches("form[data-once]")) return;
    if (e.target.dataset.sent) return e.preventDefault();
    e.target.dataset.sent = "yes";
    const b = e.target.querySelector("button");
    b.setAttribute("aria-disabled", "true");
    b.textContent += " …";
  });
  main.addEventListener("click", (e) => {
    const a = e.target.closest("a[data-filter-link]");
    if (!a || e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
    e.preventDefault();
    go(a.getAttribute("href"));
    const q = document.getElementById("q");
    if (q && !a.search) q.value = "";
    if (a.rel) scrollTo(0, 0);
  });

  // The command of an action follows the form.
  const command = document.getElementById("command");
  if (command) {
    const quote = (s) => /^[\w@%+=:,./-]+$/.test(s) ? s : "'" + s.replaceAll("'", "'\\''") + "'";
    const update = () => {
      let text = command.dataset.command;
      for (const f of main.querySelectorAll("[data-flag]")) {
        const flag = f.dataset.flag;
        if (!flag || f.value === "" || (flag === "--move-data" && f.value === "no")) continue;
        if (flag === "--for" && f.value === "next change") text += " --until-next-change";
        else if (flag === "--move-data") text += " " + flag;
        else if (flag === "/") text += "/" + quote(f.value);
        else text += flag === "-" ? " " + quote(f.value) : " " + flag + " " + quote(f.value);
      }
      command.textContent = text;
    };
    main.addEventListener("input", (e) => {
      update();
      if (e.target.id === "f-to") location.search = "?to=" + encodeURIComponent(e.target.value);
    });
    update();
  }

  // Search.
  const dialog = document.getElementById("search");
  const q = document.getElementById("search-q"), found = document.getElementById("search-found");
  const ask = () => { if (!dialog.open) { dialog.showModal(); q.select(); } };
  let asked = 0;
  q.addEventListener("input", calm(async () => {
    const mine = ++asked;
    try {
      const r = await fetch("/ui/search?q=" + encodeURIComponent(q.value));
      const doc = new DOMParser().parseFromString(await r.text(), "text/html");
      if (r.redirected) return out();
      if (mine === asked) found.replaceChildren(...doc.querySelectorAll("[data-found]"));
    } catch { found.textContent = "The server does not answer."; }
  }));
  const links = () => [...found.querySelectorAll("a")];
  dialog.addEventListener("keydown", (e) => {
    const all = links(), at = all.indexOf(document.activeElement);
    if (e.key === "ArrowDown" && all.length) { e.preventDefault(); all[Math.min(at + 1, all.length - 1)].focus(); }
    else if (e.key === "ArrowUp") { e.preventDefault(); if (at > 0) all[at - 1].focus(); else q.focus(); }
  });
  dialog.addEventListener("submit", (e) => {
    const first = links()[0];
    if (first) { e.preventDefault(); first.click(); }
  });
  dialog.addEventListener("click", (e) => { if (e.target === dialog) dialog.close(); });
  document.getElementById("find").addEventListener("click", (e) => { if (!e.ctrlKey && !e.metaKey) { e.preventDefault(); ask(); } });
  addEventListener("keydown", (e) => {
    const field = e.target.closest && e.target.closest("input, select, textarea");
    const typing = field && (dialog.open || !dialog.contains(field)); // the browser takes the focus from a closed dialog later
    if ((e.key === "k" && (e.ctrlKey || e.metaKey)) || (e.key === "/" && !typing && !e.ctrlKey && !e.metaKey)) { e.preventDefault(); ask(); }
  });

  if (document.querySelector("[data-shell]")) import("/ui/assets/shell.js" + version);

  // Logs: at most maxLines stay in memory.
  const log = document.querySelector("[data-log]");
  if (log) {
    const maxLines = 5000, state = document.getElementById("log-note"), end = document.getElementById("log-end"), find = document.getElementById("log-q");
    let dropped = 0, source = null, tries = 0, last = "";
    const say = (text) => { state.textContent = text || " "; };
    const mark = (div) => {
      const text = div.dataset.text, word = find.value.toLowerCase();
      div.replaceChildren(text);
      const at = word ? text.toLowerCase().indexOf(word) : -1;
      div.hidden = word !== "" && at < 0;
      if (at < 0) return;
      const m = document.createElement("mark");
      m.textContent = text.slice(at, at + word.length);
      div.replaceChildren(text.slice(0, at), m, text.slice(at + word.length));
    };
    find.addEventListener("input", () => { for (const d of log.children) mark(d); });
    const add = (lines) => {
      const many = document.createDocumentFragment();
      for (const l of lines) {
        const div = document.createElement("div");
        if (l.e) div.className = "err";
        div.dataset.text = (l.lost ? "(" + l.lost + " lines were lost)\n" : "") + l.t + " " + l.s + " | " + l.l;
        mark(div);
        many.append(div);
      }
      log.append(many);
      while (log.childElementCount > maxLines) { log.firstElementChild.remove(); dropped++; }
      say(dropped ? "Older lines were dropped here: " + dropped + ". Download has more." : "");
      if (end.checked) log.scrollTop = log.scrollHeight;
    };
    log.addEventListener("scroll", () => { end.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 30; });
    const shut = () => { if (source) source.close(); source = null; };
    const follow = () => {
      shut();
      const s = source = new EventSource(log.dataset.log + location.search);
      s.addEventListener("lines", (e) => { tries = 0; last = e.lastEventId; add(JSON.parse(e.data)); });
      s.addEventListener("over", () => { shut(); out(); });
      s.addEventListener("end", (e) => { shut(); const why = JSON.parse(e.data); say(why ? "The log has ended: " + why : "The log has ended."); if (why) setTimeout(follow, 5000); });
      s.onerror = () => {
        if (s !== source || s.readyState !== EventSource.CLOSED) return; // it connects again by itself
        shut();
        say("The log cannot be read now. Trying again…");
        setTimeout(() => { log.replaceChildren(); follow(); }, Math.min(10000, 500 * 2 ** tries++));
      };
    };
    document.querySelector("[data-log-form]").addEventListener("change", (e) => { if (e.target.name) e.currentTarget.submit(); });
    addEventListener("pagehide", shut);
    follow();
  }
})();
