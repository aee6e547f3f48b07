"use strict";
// Asks the leader twice a second what its locks do, and shows that. It changes nothing there.
// Names, labels and all else that clients choose become text and nothing else.

const EVERY_MS = 500;
const at = (id) => document.getElementById(id);
// In memory only: gone with the page, and never part of an address.
let token = null;
let paused = false;
let last = null;
const rows = new Map();

// A text in which each character is spelled out that could mislead its reader.
const plain = (text) =>
  String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);

const element = (kind, name, text) => {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = plain(text);
  return made;
};

const put = (node, text) => {
  const words = plain(text);
  if (node.textContent !== words) node.textContent = words;
};

const time = (ms) => {
  if (ms === null || ms === undefined) return "";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s / 60) % 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s / 3600) % 24)} h`;
};

const who = (client) => {
  const claims = client.label && client.label_is_proved === false;
  const own = (client.label || client.command || "a client") + (claims ? ", as it claims," : "");
  const pid = client.pid === null ? "" : ` (pid ${client.pid})`;
  return client.host ? `${own} on ${client.host}${pid}` : own;
};

const showLeader = (view) => {
  const { rank, epoch, in_grace, has_proof, address } = view.leader;
  const reigns = rank === "reigns";
  let words = rank === "stands by" && address ? `stands by for ${address}, epoch ${epoch}` : `${rank}, epoch ${epoch}`;
  if (reigns && in_grace) words += ", in grace: clients of before are waited for";
  if (reigns && !has_proof) words += ", without proof of its reign";
  put(at("leader"), words);
  at("leader").className = reigns && !has_proof ? "bad" : "";
};

// A bar each second: the longest wait, from 0.1 ms at the bottom to 100 s at the top.
const showPicture = (seconds) => {
  const picture = at("picture");
  const bars = [];
  let longest = 0;
  let grants = 0;
  seconds.forEach((second, index) => {
    grants += second.grants;
    longest = Math.max(longest, second.longest_ms);
    if (!second.grants) return;
    const part = (Math.log10(Math.max(second.longest_ms, 0.1)) + 1) / 6;
    const height = Math.max(3, Math.min(1, part) * 80);
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const x = (60 - seconds.length + index) * 10 + 1;
    for (const [key, value] of [["x", x], ["y", 80 - height], ["width", 8], ["height", height]]) {
      bar.setAttribute(key, value);
    }
    if (second.longest_ms < 100) bar.setAttribute("class", "quick");
    bars.push(bar);
  });
  picture.replaceChildren(...bars);
  const words = grants
    ? `${grants} grants; the longest wait was ${time(longest)}. A bar each second, as high as its longest wait, from 0.1 ms to 100 s.`
    : "Nothing was granted.";
  put(at("picture-text"), words);
  picture.setAttribute("aria-label", words);
};

const holderOf = (lock) => {
  if (lock.state === "reserved") return `for ${time(lock.remaining_ms)} more`;
  if (!lock.holders.length) return "";
  const [first] = lock.holders;
  const more = lock.holding > 1 ? ` and ${lock.holding - 1} more` : "";
  return `${who(first)}${more}`;
};

const makeRow = () => {
  const row = element("li");
  const details = element("details");
  const summary = element("summary");
  const parts = {};
  for (const [part, kind] of [["name", "bdi"], ["state", "span"], ["holder", "bdi"], ["waiting", "span"]]) {
    parts[part] = element(kind, part);
    summary.append(parts[part]);
  }
  const more = element("div", "more");
  details.append(summary, more);
  row.append(details);
  details.addEventListener("toggle", () => last && show(last));
  return { row, details, parts, more };
};

const entry = (list, title, text) => {
  if (text === "" || text === null || text === undefined) return;
  const value = element("dd");
  value.append(element("bdi", "", text));
  list.append(element("dt", "", title), value);
};

const clients = (title, list, count, words) => {
  const part = element("div");
  part.append(element("p", "small", count > list.length ? `${title}, the first ${list.length} of ${count}:` : `${title}:`));
  const items = element("ol");
  for (const client of list) {
    const item = element("li");
    item.append(element("bdi", "", words(client)));
    items.append(item);
  }
  part.append(items);
  return part;
};

const showRow = (made, lock) => {
  const { parts, details, more } = made;
  put(parts.name, lock.name);
  put(parts.state, lock.mode === "exclusive" ? lock.state : `${lock.state}, ${lock.mode}`);
  parts.state.className = `state ${/^[a-z]+$/.test(lock.state) ? lock.state : ""}`;
  put(parts.holder, holderOf(lock));
  put(parts.waiting, lock.waiting ? `${lock.waiting} waiting` : "");
  if (!details.open) return more.replaceChildren();
  const list = element("dl");
  entry(list, "token", lock.token_digits);
  entry(list, "permits", lock.limit === null ? "" : `${lock.limit} in all`);
  entry(list, "promised for", lock.state === "free" ? "" : time(lock.remaining_ms));
  entry(list, "last left", lock.predecessor);
  const shown = [list];
  if (lock.holders.length) {
    const words = (client) => `${who(client)}, for ${time(client.held_ms)}`;
    shown.push(clients("Held by", lock.holders, lock.holding, words));
  }
  if (lock.waiters.length) {
    const words = (client) => `${who(client)}, for ${time(client.waiting_ms)}`;
    shown.push(clients("Waiting, in their order", lock.waiters, lock.waiting, words));
  }
  more.replaceChildren(...shown);
};

const showLocks = (view) => {
  const wanted = at("filter").value;
  const locks = view.locks.filter((lock) => lock.name.includes(wanted));
  const list = at("locks");
  const names = new Set(locks.map((lock) => lock.name));
  for (const [name, { row }] of rows) {
    if (names.has(name)) continue;
    row.remove();
    rows.delete(name);
  }
  locks.forEach((lock, index) => {
    if (!rows.has(lock.name)) rows.set(lock.name, makeRow());
    const made = rows.get(lock.name);
    // A row with the focus is not moved: it would lose it.
    if (list.children[index] !== made.row && !made.row.contains(document.activeElement)) {
      list.insertBefore(made.row, list.children[index] || null);
    }
    showRow(made, lock);
  });
  put(at("counts"), `${view.leases} held or kept, ${view.waiters} waiting, ${view.names} names, ${view.sessions} sessions` +
    (view.names > view.locks.length ? `; ${view.locks.length} are shown, those that most wait for first.` : "; those that most wait for first."));
  const none = at("none");
  none.hidden = locks.length > 0;
  put(none, view.locks.length ? "None of the names shown has that in it." : "No lock is held or waited for.");
};

const show = (view) => {
  last = view;
  showLeader(view);
  showPicture(view.minute);
  showLocks(view);
  at("ask").hidden = true;
  at("shown").hidden = false;
};

const askForToken = (words) => {
  put(at("wrong"), words);
  put(at("leader"), "");
  last = null;
  rows.clear();
  at("locks").replaceChildren();
  at("shown").hidden = true;
  if (!at("ask").hidden) return;
  at("ask").hidden = false;
  at("token").focus();
};

const look = async () => {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  let answer;
  try {
    answer = await fetch("locks.json", { headers, cache: "no-store", credentials: "omit" });
    if (answer.status === 401) {
      const words = token === null ? "" : "This is not the leader's token.";
      token = null;
      return askForToken(words);
    }
    if (!answer.ok) throw new Error(await answer.text());
    show(await answer.json());
  } catch (error) {
    put(at("leader"), answer ? error.message : "The leader is not reached; what stands below may be old.");
    at("leader").className = "bad";
  }
};

let timer = null;
const go = async () => {
  clearTimeout(timer);
  if (!paused && !document.hidden && at("ask").hidden) await look();
  timer = setTimeout(go, EVERY_MS);
};

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = at("token").value;
  at("token").value = "";
  await look();
  if (last) at("filter").focus();
});
at("filter").addEventListener("input", () => last && show(last));
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  put(at("pause"), paused ? "Update again" : "Stop updating");
  if (!paused) go();
});
document.addEventListener("visibilitychange", () => document.hidden || go());
go();
