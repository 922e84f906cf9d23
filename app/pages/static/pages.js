// What the pages can do beyond forms and links. All of them work without it.
"use strict";

const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// The set-up token stands in the link's fragment, which is never sent; from there it goes into its field. It stays in
// this entry of the tab's history, for a reload, and out of the address bar.
function takeSetupToken() {
  const field = document.getElementById("token");
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) history.replaceState({ token: found }, "", location.pathname);
  const token = found || (history.state && history.state.token);
  const refused = field && field.hasAttribute("aria-invalid");
  if (!field || !token || (refused && !found)) return;
  field.value = token;
  document.getElementById("token-field").hidden = true;
  document.getElementById("token-taken").hidden = false;
}

function showResult(place, found) {
  place.className = `result ${found.ok ? "good" : "bad"}`;
  place.textContent = found.message;
}

// Sends the form as this button would, and answers what the page would have shown.
async function ask(form, button) {
  const body = new FormData(form);
  if (button.name) body.append(button.name, button.value);
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { accept: "application/json" } });
    const found = await answer.json();
    return found.error ? { ok: false, message: found.error.message } : found;
  } catch {
    return { ok: false, message: "The gateway did not answer. Is it running, and are you still signed in?" };
  }
}

async function whileBusy(button, work) {
  const before = [...button.childNodes];
  button.disabled = true;
  button.textContent = button.dataset.busy;
  try {
    return await work();
  } finally {
    button.replaceChildren(...before);
    button.disabled = false;
    button.focus();
  }
}

async function verify(button) {
  const place = button.closest("[data-row], form").querySelector("[data-result]");
  place.textContent = "";
  showResult(place, await whileBusy(button, () => ask(button.form, button)));
}

function enhanceWizard(form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    const place = form.querySelector("[data-result]");
    place.textContent = "";
    const found = await whileBusy(button, () => ask(form, button));
    if (found.next) {
      location.assign(found.next);
      return;
    }
    showResult(place, found);
    if (!found.field) form.querySelector("[data-anyway]").hidden = false;
    if (found.field === "url") form.querySelector("details").open = true;
  });
}

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  let done = false;
  try {
    await navigator.clipboard.writeText(source.textContent); // there only on https and on this very machine
    done = true;
  } catch {
    getSelection().selectAllChildren(source);
    done = document.execCommand("copy");
  }
  const before = [...button.childNodes];
  button.textContent = done ? "Copied" : "Press Ctrl+C";
  setTimeout(() => button.replaceChildren(...before), 2000);
}

let number = 1000; // beyond those that the page came with

function addRow(button) {
  const kind = button.dataset.add;
  const template = document.getElementById(`new-${kind}`);
  const row = template.content.firstElementChild.cloneNode(true);
  number += 1;
  for (const element of [row, ...all("*", row)]) {
    for (const attribute of [...element.attributes]) {
      if (attribute.value.includes("9999")) attribute.value = attribute.value.replaceAll("9999", number);
    }
  }
  document.querySelector(`[data-rows="${kind}"]`).append(row);
  all("[data-none]").forEach((element) => element.remove());
  row.querySelector("input:not([type=hidden])").focus();
}

function guardChanges(form) {
  const note = form.querySelector("[data-changed]");
  let changed = "unsaved" in form.dataset;
  note.hidden = !changed;
  const mark = () => {
    changed = true;
    note.hidden = false;
  };
  form.addEventListener("input", mark);
  form.addEventListener("rows", mark);
  form.addEventListener("submit", () => {
    changed = false;
  });
  addEventListener("beforeunload", (event) => {
    if (changed) event.preventDefault();
  });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.confirm && !confirm(button.dataset.confirm)) event.preventDefault();
  else if ("verify" in button.dataset) {
    event.preventDefault();
    verify(button);
  } else if ("copy" in button.dataset) copy(button);
  else if ("add" in button.dataset) {
    event.preventDefault();
    addRow(button);
    button.form.dispatchEvent(new Event("rows"));
  } else if ("remove" in button.dataset) {
    event.preventDefault();
    const form = button.form;
    button.closest("[data-row]").remove();
    form.dispatchEvent(new Event("rows"));
    form.querySelector(`[data-add="${button.value.split(" ")[1]}"]`).focus();
  }
});

takeSetupToken();
addEventListener("hashchange", takeSetupToken);
all("[data-wizard]").forEach(enhanceWizard);
all("[data-guarded]").forEach(guardChanges);
all("[data-copy]").forEach((button) => {
  button.hidden = false;
});
all("time").forEach((element) => {
  const when = new Date(element.dateTime);
  element.title = element.textContent;
  element.textContent = when.toLocaleString([], {
    dateStyle: "medium",
    timeStyle: "exactly" in element.dataset ? "medium" : "short",
  });
});
const first = document.querySelector("[data-focus]") || document.querySelector("[aria-invalid]");
if (first) first.focus();
