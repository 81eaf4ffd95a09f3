// Keys for the experts' page, and the few things that HTML alone cannot do. Without it the page works by its buttons.
"use strict";

const visible = (element) => element && element.offsetParent !== null && !element.disabled;

function byKey(key) {
  return [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key && visible(element));
}

function writing(target) {
  return target.closest("input:not([type=radio]), textarea, select, [contenteditable]") !== null;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat) return;
  const target = event.target;
  if (event.key === "Escape" && writing(target)) { target.blur(); return; }
  if (writing(target)) return;
  if (event.key === "Enter" && target.closest("button, a, summary, input")) return; // the focused control's own
  if (event.key === "/") {
    const find = document.getElementById("class");
    if (find) { event.preventDefault(); find.focus(); }
    return;
  }
  const element = byKey(event.key);
  if (!element) return;
  event.preventDefault();
  if (event.key === "?" || element.tagName === "DETAILS") {
    const fold = element.tagName === "DETAILS" ? element : document.getElementById("help");
    fold.open = !fold.open;
    if (fold.open) fold.querySelector("summary").focus();
    return;
  }
  element.click();
});

document.addEventListener("click", (event) => {
  const help = event.target.closest('a[href="#help"]');
  if (help) { document.getElementById("help").open = true; return; }
  const all = event.target.closest("[data-all]");
  if (all) for (const row of all.closest("form").querySelectorAll("fieldset")) row.querySelectorAll("input[type=radio]")[Number(all.dataset.all)].checked = true;
});

// one answer at a time: a second press while the first is under way is not another answer
document.addEventListener("htmx:beforeRequest", (event) => {
  const desk = document.getElementById("desk");
  if (!desk) return;
  if (desk.dataset.busy) { event.preventDefault(); return; }
  if (event.target !== desk) desk.dataset.busy = "1";
});
document.addEventListener("htmx:afterRequest", () => {
  const desk = document.getElementById("desk");
  if (desk) delete desk.dataset.busy;
});
document.addEventListener("htmx:afterSwap", (event) => {
  const desk = document.getElementById("desk");
  if (!desk || event.detail.target.id === "message") return;
  const message = document.getElementById("message");
  const quietly = event.detail.requestConfig.verb === "get";
  if (!quietly || desk.querySelector("form.say")) document.getElementById("head").focus({ preventScroll: quietly });
  if (!quietly) { message.textContent = desk.dataset.message || ""; window.scrollTo(0, 0); }
});
const lost = () => { document.getElementById("message").textContent = "The server does not answer, so this was not saved. Try again in a moment."; };
document.addEventListener("htmx:sendError", lost);
document.addEventListener("htmx:timeout", lost);
