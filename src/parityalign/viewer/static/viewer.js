// Keys, and parts of pages in their place. Without it every page still works by links and forms.
"use strict";

const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const wide = matchMedia("(min-width: 60rem)");

function current() { return one('.entry[aria-current="true"]'); }

async function select(entry) {
  const place = one("#pair");
  if (!entry || !place) return;
  current()?.removeAttribute("aria-current");
  entry.setAttribute("aria-current", "true");
  entry.scrollIntoView({ block: "nearest" });
  const address = new URL(location);
  address.searchParams.set(entry.dataset.pair === undefined ? "question" : "pair", entry.dataset.pair ?? entry.dataset.question);
  history.replaceState(null, "", address);
  const answer = await fetch(entry.pathname + "?part", { headers: { accept: "text/html" } });
  const text = await answer.text();
  if (answer.ok && current() === entry) {
    place.innerHTML = text;
    place.scrollTop = 0;
  }
}

function step(by) {
  const entries = all(".entry"), at = entries.indexOf(current()) + by;
  if (at >= 0 && at < entries.length) { select(entries[at]); return; }
  const on = one(by > 0 ? 'a[rel="next"]' : 'a[rel="prev"]'), here = new URL(location);
  if (by > 0 && marked && here.searchParams.get("mark")) {
    // What was marked on this page may have left the list, and others have moved up: the page again, not the next one.
    here.searchParams.delete("pair");
    location.assign(here);
    return;
  }
  if (!on) return;
  const address = new URL(on.href);
  if (by < 0) address.hash = "last";
  location.assign(address);
}

let marked = false;

async function mark(form, kind) {
  const fields = new URLSearchParams(new FormData(form));
  fields.set("mark", kind);
  const answer = await fetch(form.action, { method: "POST", body: fields, headers: { accept: "application/json" } });
  const said = answer.headers.get("content-type")?.startsWith("application/json") ? await answer.json() : { problem: "The viewer did not take the mark: " + answer.status };
  const pair = fields.get("pair_id");
  if (said.problem) {
    const told = one("[data-problem]", form);
    told.textContent = said.problem + (answer.status === 409 ? " Mark again to override it." : "");
    told.hidden = false;
    if (answer.status === 409) one('[name="seen"]', form).value = said.version;
    return;
  }
  marked = true;
  const reviewed = one("[data-reviewed]");
  if (reviewed) reviewed.textContent = said.reviewed.toLocaleString("en");
  const tag = all(".entry").find((entry) => entry.dataset.pair === pair)?.querySelector("[data-mark]");
  if (tag) {
    tag.textContent = said.mark + (said.pending ? ", pending" : "");
    tag.className = "tag mark " + said.mark;
    tag.hidden = false;
  }
  const part = await fetch("/" + location.pathname.split("/")[1] + "/pairs/" + encodeURIComponent(pair) + "?part");
  const text = await part.text();
  if (part.ok && one('#pair [name="pair_id"]')?.value === pair) one("#pair").innerHTML = text; // else one is elsewhere by now
}

function askMark(kind) {
  const form = one("[data-review]");
  if (!form) return;
  const answer = one('[name="answer"]', form);
  if (kind === "correct" && !answer.value.trim()) { answer.focus(); return; }
  mark(form, kind);
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("[data-review]")) return;
  event.preventDefault();
  // Enter in a field presses the first button of a form: there it means a correction, if there is one.
  const kind = document.activeElement?.name === "answer" ? "correct" : event.submitter?.value ?? "keep";
  askMark(document.activeElement?.matches("button") ? event.submitter.value : kind);
});

document.addEventListener("click", (event) => {
  const picture = event.target.closest(".picture img");
  if (picture) { picture.closest(".picture").classList.toggle("large"); return; }
  const entry = event.target.closest(".entry");
  if (!entry || !wide.matches || !one("#pair") || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  select(entry);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writes = event.target.matches("input:not([type=hidden]), textarea, select");
  if (event.key === "Escape") {
    all(".picture.large").forEach((each) => each.classList.remove("large"));
    if (writes) event.target.blur();
    return;
  }
  if (writes) return;
  const does = {
    j: () => step(1),
    k: () => step(-1),
    Enter: () => one(".one .picture")?.classList.toggle("large"),
    1: () => askMark("keep"),
    2: () => askMark("drop"),
    3: () => askMark("correct"),
    "/": () => { const filters = one("details.filters"); if (filters) filters.open = true; one('input[type="search"]')?.focus(); },
  }[event.key];
  if (!does || (event.key === "Enter" && event.target.matches("a:not(.entry), button, summary"))) return;
  event.preventDefault();
  does();
});

// Try: a picture is sent when it is chosen; then one model after the other is asked.
const asking = one("[data-try]");

function tell(problem) {
  const told = one("[data-problem]", asking);
  told.textContent = problem;
  told.hidden = !problem;
}

async function sendPicture(file) {
  if (file.size > Number(asking.dataset.max)) { tell("The picture has more than " + asking.dataset.max + " bytes."); return; }
  const answer = await fetch(asking.dataset.try + "/pictures", { method: "POST", body: file });
  const said = answer.headers.get("content-type")?.startsWith("application/json") ? await answer.json() : { problem: "The viewer did not take the picture: " + answer.status };
  tell(said.problem ?? "");
  if (said.problem) return;
  one('[name="picture"]', asking).value = said.picture;
  const shown = one("[data-shown]", asking);
  shown.src = asking.dataset.try + "/pictures/" + said.picture + "?large";
  shown.hidden = false;
}

async function askAll() {
  const fields = new URLSearchParams(new FormData(asking)), button = one("[data-ask]", asking), told = one("[data-told]", asking);
  if (!fields.get("picture") && !fields.get("pair") && !fields.get("question")) { tell("Choose a picture first."); return; }
  tell("");
  button.disabled = true;
  const places = all("[data-who]", asking);
  places.forEach((place) => { place.textContent = "..."; place.className = ""; });
  for (const place of places) {
    told.textContent = "Asking " + place.previousElementSibling.textContent + "; loading a model may take a while.";
    fields.set("who", place.dataset.who);
    const answer = await fetch(asking.dataset.try + "/answers", { method: "POST", body: fields });
    const said = answer.headers.get("content-type")?.startsWith("application/json") ? await answer.json() : { problem: "The viewer did not answer: " + answer.status };
    place.textContent = said.problem || said.text || "empty answer";
    place.className = said.problem ? "none" : "";
    place.title = said.seconds === undefined ? "" : said.seconds + " s";
  }
  told.textContent = "";
  button.disabled = false;
}

if (asking) {
  asking.addEventListener("submit", (event) => { event.preventDefault(); askAll(); });
  one("[data-file]", asking).addEventListener("change", (event) => { if (event.target.files[0]) sendPicture(event.target.files[0]); });
  const drop = one("[data-drop]", asking);
  for (const name of ["dragover", "drop"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      if (name === "drop" && event.dataTransfer.files[0]) sendPicture(event.dataTransfer.files[0]);
    });
  }
}

if (location.hash === "#last") {
  history.replaceState(null, "", location.pathname + location.search);
  select(all(".entry").at(-1));
}
const back = one("[data-back]");
if (back && location.search) back.search = location.search;
